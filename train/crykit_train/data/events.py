"""From the class names of public data sets to the events of a manifest.

The rules read names as AudioSet's ontology, FSD50K, ESC-50 and VGGSound write them. A sob or a
whimper may be a baby's or not: such clips become ``unverified``, which is neither a cry nor a
negative.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# In order: the first rule that matches a name decides.
_RULES: tuple[tuple[str, str], ...] = (
    ("cry", r"bab(y|ies) cry|infant cry|crying bab|baby crying"),
    ("unverified", r"crying|sobbing|whimper(?!.*dog)|wail|moan|baby babbling"),
    ("laugh", r"laugh|giggl|chuckl|snicker|chortle"),
    ("children", r"child|kids?\b|babbl|infant|playground|school"),
    (
        "animal",
        r"\bdogs?\b|\bcats?\b|\bbirds?\b|\bhens?\b|\bcows?\b|\bpigs?\b|\bsheep\b|\bgoats?\b",
    ),
    (
        "alarm",
        r"alarm|siren|\bbells?\b|\bhorn\b|honk|beep|buzzer|doorbell|ringtone|telephone|chime|ding"
        r"|air horn|reversing",
    ),
    (
        "music",
        r"music|sing|song|instrument|guitar|piano|violin|cello|flute|clarinet|oboe|trumpet|"
        r"saxophone|drum|organ\b|choir|opera|orchestra|harp\b|banjo|ukulele|accordion|bass\b|"
        r"tabla|sitar|gong|cymbal|marimba|glockenspiel|rapping|yodel|humming|harmonica|zither|"
        r"bagpipe|trombone|vibraphone|theremin|didgeridoo|beatbox|disc scratching|timpani|"
        r"tambourine|steelpan|bugle|erhu|lute|mandolin|shofar|cornet|french horn|castanets",
    ),
    (
        "animal",
        r"animal|bark|bow-?wow|yip|howl|meow|purr|caterwaul|livestock|horse|neigh|cattle|moo\b|"
        r"oink|bleat|fowl|chicken|rooster|\bcrow\b|caw\b|cluck|turkey|gobble|duck|quack|goose|geese|wild|"
        r"roar|chirp|tweet|pigeon|dove|coo\b|owl|flap|insect|cricket|mosquito|\bfly\b|\bbee|frog|"
        r"croak|snake|whale|rodent|mouse (?!click)|\brats?\b|growl|lion|elephant|woodpecker|"
        r"penguin|parrot|magpie|cuckoo|canary|peacock|eagle|swallow|cicada|sea lion|otter|chipmunk|"
        r"coyote|fox|cheetah|bobcat|alligator|chimp|dinosaur|donkey|zebra|gibbon|warbler|baltimore",
    ),
    (
        "speech",
        r"speech|speak|conversation|narration|whisper|chatter|talk|monologue|babble|hubbub|"
        r"synthesi[sz]er voice|people babbling",
    ),
    (
        "human",
        r"human|cough|sneez|snor|breath|gasp|pant\b|sniff|throat|hiccup|burp|fart|digest|"
        r"footstep|walk|\brun\b|clap|applau|cheer|boo\b|whistl|shout|yell|scream|"
        r"bellow|groan|grunt|sigh|chew|gargl|biting|heart|finger|hands|crowd|people|person|man\b|"
        r"woman|battle cry|brushing teeth|drinking|sipping|slurp|eating|whoop",
    ),
    (
        "household",
        r"household|domestic|door|knock|tap\b|squeak|dish|pots|pans|cutlery|chopping|frying|"
        r"microwave|blender|tap water|faucet|sink|bathtub|hair dryer|toilet|toothbrush|vacuum|"
        r"zipper|keys|coin|scissors|shaver|typ(ing|ewriter)|keyboard|writing|clock|tick|tock|"
        r"kettle|washing machine|glass|drawer|cupboard|printer|camera|sewing|\biron\b|crumpl|"
        r"tearing|can opening|pouring|mouse click|wood creak|creak|slam|sawing|hammer|drill|tool|"
        r"boiling|shatter|packing tape|cap gun|ripping paper|tearing|folding|paper|fan\b|bottle",
    ),
    (
        "noise",
        r"noise|static|hum\b|hiss|rain|wind|water|stream|wave|ocean|thunder|storm|fire|crackl|"
        r"vehicle|car\b|truck|bus\b|train|rail|subway|motor|engine|aircraft|airplane|helicopter|"
        r"boat|ship|bicycle|skateboard|traffic|idling|mechan|machine|gears|pump|compressor|"
        r"air condition|generator|jackhammer|explosion|gun|firework|saw\b|chainsaw|environment|"
        r"outside|inside|reverb|echo|natural|vibration|rumble|thump|thud|bang|rustl|splash|"
        r"drip|gush|bubble|spray|drop|roll|scrape|click|tunnel|sea\b|volcano|hail|waterfall|lawn|"
        r"race|tractor|rocket|sailing|skiing|driving|crash|source-ambiguous|things|channel",
    ),
    ("silence", r"silence"),
)
_COMPILED = tuple((event, re.compile(pattern)) for event, pattern in _RULES)

# Of several labels on one clip, which tells what it is good for. A cry outweighs all; what may be
# one spoils it as a negative.
_PRECEDENCE = (
    "cry",
    "unverified",
    "laugh",
    "children",
    "speech",
    "human",
    "animal",
    "music",
    "alarm",
    "household",
    "noise",
    "silence",
    "other",
)


def event_of(name: str) -> str:
    """The event that a class name stands for; ``other`` where no rule knows it."""
    plain = re.sub(r"[_\s]+", " ", name).strip().lower()
    for event, pattern in _COMPILED:
        if pattern.search(plain):
            return event
    return "other"


def event_of_all(names: Iterable[str]) -> str:
    """The event of a clip with several class names; ``other`` for none."""
    return weightiest(event_of(name) for name in names)


def weightiest(events: Iterable[str]) -> str:
    """Of several events in one clip, the one that the clip counts as; ``other`` for none."""
    found = set(events)
    return next((event for event in _PRECEDENCE if event in found), "other")
