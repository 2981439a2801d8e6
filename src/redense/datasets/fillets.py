"""fillets-cs and fillets-nl: the Czech and the Dutch voices of the puzzle game Fish Fillets.

Task      speech: two main actors and some others, 22,050 Hz mono, median 3 s
Size      cs: 1,620 clips, 1.44 h; nl: 1,487 clips, 1.45 h; 110 MB to fetch, 147 and 78 MB prepared,
about 25 s each Licence   GPL-2
Source    Debian `fillets-ng-data` (texts) and `fillets-ng-data-cs`, `fillets-ng-data-nl` (voices)
Split     by sentence; the speakers are shared
"""

from __future__ import annotations

import re
from pathlib import Path

from redense.datasets import fetch
from redense.datasets.card import Card
from redense.datasets.speech import SPLIT, Utterance, write_speech

SHA256 = {
    "cs": {
        "dialogs_cs.lua": "f7532a7ae8662c837bbe2b46e873111fa7fccd4b0c7a8aef83b25437d4233586",
        "cs/*.ogg": "903009cfe68578f2b1cba45dd6627308e148b21b2e726d95ff5dd0bb4d840cfe",
    },
    "nl": {
        "dialogs_nl.lua": "0e340d68ce15bc3f17e08d7d1b9159ef0db6e4712093737cb7d3b389903bbe30",
        "nl/*.ogg": "61d8a4bf0b12eecb36cad50d1c5583be9c984fe663ca336c83163912403e71e0",
    },
}
_DIALOG = re.compile(
    r'dialogId\("(?P<id>[^"]+)", *"(?:font_)?(?P<font>[^"]*)",.*\)\s*'
    r'dialogStr\("(?P<text>(?:[^"\\]|\\.)*)"\)'
)


def write_cs(out: Path, work: Path, source: Path | None) -> Card:
    """Write the Czech manifests and `audio/*.flac` (see `speech.write_speech`)."""
    return _write("cs", out, work, source)


def write_nl(out: Path, work: Path, source: Path | None) -> Card:
    """Write the Dutch manifests and `audio/*.flac` (see `speech.write_speech`)."""
    return _write("nl", out, work, source)


def read_dialogs(lua: str) -> list[tuple[str, str, str | None]]:
    """Id, text and speaker, which is the colour of the letters, of each dialog of a level's
    `dialogs_<lang>.lua`."""
    return [
        (match["id"], re.sub(r"\\(.)", r"\1", match["text"]), match["font"] or None)
        for match in _DIALOG.finditer(lua)
    ]


def _write(language: str, out: Path, work: Path, source: Path | None) -> Card:
    texts = fetch.debian("fillets-ng-data", f"*/dialogs_{language}.lua", work, source)
    voices = fetch.debian(f"fillets-ng-data-{language}", f"*/{language}/*.ogg", work, source)
    scripts = fetch.find(texts, "script")
    sounds = fetch.find(voices, "sound")
    for pattern, folder in ((f"dialogs_{language}.lua", scripts), (f"{language}/*.ogg", sounds)):
        got = fetch.sha256_of_files(folder.glob(f"*/{pattern}"), folder)
        fetch.check(f"fillets-ng-data {pattern}", got, SHA256[language][pattern])
    utterances = []
    for script in sorted(scripts.glob(f"*/dialogs_{language}.lua")):
        level = script.parent.name
        for name, text, speaker in read_dialogs(script.read_text(encoding="utf-8")):
            clip = sounds / level / language / f"{name}.ogg"
            if clip.exists() and "%" not in text:  # %1 stands for a word that is chosen in the game
                utterances.append(Utterance(f"{level}-{name}", clip.read_bytes(), text, speaker))
    written = write_speech(out, utterances)
    return Card(
        name=f"fillets-{language}",
        task="speech",
        sizes=written.sizes,
        alphabet=written.alphabet,
        source=f"Debian packages fillets-ng-data and fillets-ng-data-{language}",
        source_sha256=SHA256[language],
        licence="GPL-2.0-only",
        credit="Fish Fillets, (C) ALTAR interactive; Fish Fillets NG, (C) Ivo Danihelka and others",
        split=SPLIT,
        leakage=written.leakage,
    )
