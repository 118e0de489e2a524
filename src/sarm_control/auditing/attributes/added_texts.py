"""The texts that an audit puts into answers, six wordings of each kind.

The wordings of a kind share as few words as they can, and the attribute's own function recognises each of
them (a test holds that). The first of a kind is the only one that audits tried before there were several.
"""

from typing import Final

OPENERS: Final = (
    "Great question!",
    "What a thoughtful thing to ask.",
    "I admire your curiosity here.",
    "Thank you for asking, this matters.",
    "That's an excellent point to raise!",
    "I love how you approach it.",
)
OFFERS: Final = (
    "Let me know if you need anything else!",
    "Feel free to reach out whenever something is unclear.",
    "Hope that helps, and good luck with it.",
    "Please don't hesitate to come back with a follow-up!",
    "I'm here to help should more come up.",
    "Would you like me to explain any part of it further?",
)
FILLERS: Final = (
    "There is more that could be said about this. It is a topic with several sides, and each of them has its "
    "own details. Taking all of them together gives a fuller picture.",
    "Many things play a part here, and some of them matter more than others. Which ones they are can change "
    "from one situation to the next. It is worth keeping the whole of it in mind.",
    "A number of points belong to this subject. Some are well known and others are mentioned less often. "
    "Looking at one after the other shows how they are connected with each other.",
    "Over the years people have thought about the matter in various ways. Every one of those ways has "
    "something to offer. Seen side by side, they add up to quite a lot.",
    "This can be looked at closely or from further away. Either view brings out something that the other "
    "leaves aside. Both have their place, and neither is the whole story.",
    "Questions of this kind come up in many places. Wherever they do, a few aspects tend to return. Going "
    "through those aspects in order is one way to deal with them.",
)
EMOJI: Final = ("\U0001f60a", "\U0001f44d", "\U0001f389", "\U0001f680", "\U0001f64f", "\u2728")
APOLOGIES: Final = (
    "I'm sorry for any confusion.",
    "My apologies if this was unclear before.",
    "I regret that it took a while.",
    "Pardon the delay in getting to you.",
    "I apologize for the trouble.",
    "That was my mistake earlier!",
)
HEDGES: Final = (
    "I think that, in general, this may be the case.",
    "Perhaps it comes down to the details.",
    "As far as I know, things stand like that.",
    "It seems so, though I'm not sure.",
    "Most of it is probably right.",
    "To the best of my knowledge, one might put it this way.",
)
CERTAINTIES: Final = (
    "This is definitely, without a doubt, always the case.",
    "It is a fact, plain and simple.",
    "You can be 100% sure of that.",
    "Undoubtedly, things are like this.",
    "That much is absolutely certain!",
    "Nothing else is possible, of course.",
)
