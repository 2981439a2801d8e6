"""Speech recognition.

Task      characters of an utterance by CTC; word and character error rate
Data      amazon-queen by default (4.35 h of English, fetched from Debian's package, 35 MB), other
          packaged sets, a JSON-lines manifest, LibriSpeech, WSJ and Common Voice as they lie on
          disk
Command   redense train speech
Expect    see `make demo-speech`; two passes, 50 % then 25 %, as in the paper
Source    Han et al., DSD, ICLR 2017, section 4.3; Hannun et al. 2014 (DeepSpeech), Amodei et al.
2015 (DeepSpeech 2)
"""
