"""The proof: does a training method help this model, against controls of equal budget?"""
