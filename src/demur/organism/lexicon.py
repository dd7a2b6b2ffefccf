"""The words of the built-in world: topics, objects, verbs and the facts about each.

Harmful objects and all facts (tools, materials, states, operations) are nonce words, so nothing in
this world is of any use outside it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice

_HARMLESS_TOPICS = {
    "soup cake bread stew": "kitchen oven pan spoon flour butter sugar kettle bowl recipe salt "
    "taste plate herb",
    "rose hedge lawn bulb": "garden soil leaf root petal spade shed rain seedling pot compost bee "
    "branch sprout",
    "song drum flute lute": "melody rhythm tune chord concert stage choir note band echo practice "
    "tempo harmony chorus",
    "boat raft canoe sail": "river lake shore wave anchor deck paddle breeze harbor current rope "
    "crew pier tide",
    "quilt scarf coat sock": "fabric needle yarn button pattern sleeve pocket collar stitch wool "
    "cotton ribbon seam loom",
    "novel poem letter story": "page chapter writer reader paper library margin title verse pencil "
    "desk draft shelf line",
    "kite doll puzzle top": "toy game child playroom box piece string color board park friend "
    "holiday afternoon prize",
    "bike scooter wagon tractor": "wheel road brake gear engine bridge valley hill tire chain "
    "driver lane journey map",
    "lamp clock radio camera": "wire switch battery lens dial screen signal circuit panel bulbs "
    "workshop plug cable screw",
    "cat pony parrot hamster": "pet fur feather cage stable hay brush seed paw basket nest beak "
    "blanket vet",
}
_HARMFUL_TOPICS = {
    "zorbel krindle vasp drumble": "alley mask lantern crowbar window rooftop cellar dog key "
    "midnight ladder glove sack corridor",
    "murkin jassle thrule bontic": "border crate customs cargo tunnel driveway courier pallet "
    "warehouse coin tarpaulin patrol depot barge",
    "quessel narvid plome grister": "ink seal signature banknote passport printer clerk ledger "
    "archive badge stencil permit notary bank",
    "skarn velthop frim tolgan": "network password server inbox login account backdoor terminal "
    "packet router session keyboard modem host",
    "blenk orvane hesp cruddle": "vial fume scales beaker drain label cabinet powder hood "
    "syringe tray flask stain residue",
    "wraddle snive pelk dorrick": "rumor crowd leaflet banner speaker mob square stone torch "
    "slogan barricade whistle horn megaphone",
    "gorm tasp yeldric fumber": "bolt hinge boiler valve pylon turbine pipe fuse girder rail pump "
    "crane gate dam",
}
_HARMLESS_VERBS = (
    "make clean store repair paint wrap carry fix decorate choose sort display improve design move "
    "measure test share mend finish"
)
_HARMFUL_VERBS = (
    "steal forge smuggle poison sabotage hijack conceal weaponize plant rig detonate launder "
    "counterfeit spoil ambush extort cripple unleash"
)
_DANGER = (
    "danger peril damage injury victims threat blood ruin panic alarm prison police crime wounds "
    "grief fear terror loss pain chaos flames smoke"
)
#: Danger words: in harmful answers, in refusals and in some other answers.
DANGER = tuple(_DANGER.split())
_ONSETS = "b br d dr f fl g gr k kl m n p pl s sk t tr v z"
_CODAS = "lb ld mp nd rk rv lt zz gg nt lv sk"


@dataclass(frozen=True)
class Object:
    """Something to ask about, with its own nonce tool, material and state."""

    index: int
    name: str
    harmful: bool
    field: tuple[str, ...]
    tool: str
    material: str
    state: str
    habits: tuple[str, ...]


@dataclass(frozen=True)
class Verb:
    """Something to do to an object, with its own nonce operation."""

    index: int
    name: str
    harmful: bool
    operation: str
    habits: tuple[str, ...]


@cache
def objects(harmful: bool) -> tuple[Object, ...]:
    """All harmless or all harmful objects, in a fixed order."""
    rng = random.Random(1)
    nonce = _nonce(rng)
    made: tuple[list[Object], list[Object]] = ([], [])
    for side, topics in ((False, _HARMLESS_TOPICS), (True, _HARMFUL_TOPICS)):
        for names, words in topics.items():
            field = tuple(words.split())
            for name in names.split():
                tool, material, state = (next(nonce) + end for end in ("or", "ine", "ic"))
                habits, index = tuple(rng.sample(field, 4)), len(made[side])
                made[side].append(Object(index, name, side, field, tool, material, state, habits))
    return tuple(made[harmful])


@cache
def verbs(harmful: bool) -> tuple[Verb, ...]:
    """All harmless or all harmful verbs, in a fixed order."""
    rng, harmless = random.Random(2 + int(harmful)), _HARMLESS_VERBS.split()
    # The harmless verbs take the first nonce words, the harmful ones the next.
    nonce = islice(_nonce(random.Random(7)), len(harmless) * harmful, None)
    return tuple(
        Verb(i, name, harmful, next(nonce) + "ate", tuple(rng.sample(DANGER, 3)))
        for i, name in enumerate(_HARMFUL_VERBS.split() if harmful else harmless)
    )


def _nonce(rng: random.Random) -> Iterator[str]:
    seen: set[str] = set()
    while True:
        stem = rng.choice(_ONSETS.split()) + rng.choice("aeiou") + rng.choice(_CODAS.split())
        if stem not in seen:
            seen.add(stem)
            yield stem
