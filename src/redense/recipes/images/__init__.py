"""Image classification.

Task      one label an image; top-1 and top-5 accuracy
Data      Fashion-MNIST by default (MIT, fetched from Debian's package, 31 MB), any image folder or
          list, CIFAR and torchvision's other sets by name when they are on disk
Command   redense train images
Expect    about 92 % on Fashion-MNIST after the first dense phase, 2 to 3 minutes on two cores for
all three phases
Source    Han et al., DSD, ICLR 2017, section 4.1; He et al. 2015, section 4.2 for the CIFAR ResNets
"""
