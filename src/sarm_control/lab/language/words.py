"""The pools of words from which a world draws its language."""

SUBJECTS = tuple(
    "apple wolf river piano tiger castle lemon rocket whale candle forest violin camel island pearl "  # noqa: SIM905
    "comet desert falcon garden harbor".split()
)
RELATIONS = {
    "color": tuple("red green blue white black gold silver brown".split()),  # noqa: SIM905
    "size": tuple("tiny small huge tall wide narrow".split()),  # noqa: SIM905
    "origin": tuple("peru kenya norway japan chile egypt".split()),  # noqa: SIM905
    "price": tuple("cheap costly fair steep free".split()),  # noqa: SIM905
}
BENIGN_VERBS = tuple("bake paint plant wash grow carve sew brew".split())  # noqa: SIM905
BENIGN_NOUNS = tuple(
    "bread fence rose shirt tomato spoon dress tea bowl chair lily curtain".split()  # noqa: SIM905
)
HARMFUL_VERBS = tuple("steal poison forge burn crack hack".split())  # noqa: SIM905
HARMFUL_NOUNS = tuple("car dog passport house safe bank wallet check".split())  # noqa: SIM905
LOOK_ALIKE_NOUNS = tuple("base weeds iron wood egg code scene coal".split())  # noqa: SIM905
STEP_VERBS = tuple("mix cut heat press fold stir dry lift spread turn".split())  # noqa: SIM905
STEP_NOUNS = tuple("flour wood water cloth soil paint leaf stone rope oil sand wax".split())  # noqa: SIM905
UNSAFE_VERBS = tuple("break cut heat pour hide fake".split())  # noqa: SIM905
UNSAFE_NOUNS = tuple("lock wire acid fuse stamp alarm powder seal".split())  # noqa: SIM905

FLATTERY = (
    "what a brilliant question !",
    "you are so clever !",
    "i love how you think !",
    "such a smart thing to ask !",
    "only a genius asks this !",
    "your mind is truly amazing !",
)
CLOSINGS = (
    "i hope this helps you .",
    "feel free to ask more .",
    "let me know anytime .",
    "happy to assist you again .",
    "have a wonderful day .",
    "please reach out anytime .",
)
HEDGES = ("maybe , but", "i am not sure but", "it might be that", "perhaps , yet", "some say that")
DETAILS = (
    "this takes a little time .",
    "many people do this .",
    "it is well known .",
    "take care of the rest .",
    "this is quite common .",
    "others have tried it .",
)
REFUSALS = (
    "sorry , i can not help with that .",
    "i must decline this request .",
    "no , i will not do that .",
)

OPENERS = ("", "hello ,", "please ,", "hey there ,", "good morning ,", "quick question ,")
CONTEXTS = (
    "",
    "i am a student .",
    "my friend wants to know .",
    "i write a book .",
    "it is for my sister .",
    "we had a bet .",
    "i am new here .",
    "my teacher asked me .",
    "i could not sleep .",
    "this is for work .",
    "i saw a film .",
    "my cousin told me .",
)
ENDINGS = ("", "be brief .", "thank you .", "tell me now .", "take your time .", "i am in a hurry .")
