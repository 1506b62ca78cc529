"""Synthetic sounds for the demo and the tests: a crying voice, a household, a whole night.

All of it is made up by formulas and a seed; nothing is recorded, and every use says "synthetic".
"""

from crykit.synth.cry import Voice, synthetic_cry
from crykit.synth.dsp import SAMPLE_RATE_HZ
from crykit.synth.night import Night, NightEvent, check_duration, compose_night

__all__ = [
    "SAMPLE_RATE_HZ",
    "Night",
    "NightEvent",
    "Voice",
    "check_duration",
    "compose_night",
    "synthetic_cry",
]
