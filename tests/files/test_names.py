"""Hints where a name is not known."""

from redense.files.names import near


def test_the_two_nearest_names_are_asked_for():
    known = ["resnet18", "resnet152", "vgg16"]
    assert near("resnet19", known) == "did you mean resnet18 or resnet152?"
    assert near("vgg61", dict.fromkeys(known)) == "did you mean vgg16?"
    assert near("zzz", known) == near("zzz", []) == ""
    assert near("vgg", known, cutoff=0.9) == ""
