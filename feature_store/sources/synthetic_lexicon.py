"""Words for synthetic items: as many as are asked for, all different, and all readable."""

from __future__ import annotations

from itertools import chain, count, islice


def _words(text: str) -> list[str]:
    return text.split()


_NAMES = _words(
    """
    alder amber ash aspen bay beech birch bramble briar cedar clover coral crane dale dove
    elder elm fern finch fox frost glen hart hawk hazel heath heron holly ivy juniper
    kestrel lark laurel linden maple marsh mill moss oak otter pearl pine raven rowan rush
    silver stone swan thorn willow wren
    """
)
_PLACES = _words(
    """
    bank bridge brook combe cote croft dean den field ford gate grove ham hurst ley mere
    mouth port ridge shaw side stead ton vale wick worth
    """
)
_PLAIN = _words(
    """
    basic bright calm classic clear compact cosy deluxe double easy extra fine fresh gentle
    giant grand handy happy honest large light little long mini modern natural neat new
    original plain premium pure quick quiet royal simple slim small soft solid special
    standard strong sturdy super sweet tall travel true warm wide
    """
)
_MATERIALS = _words(
    """
    bamboo birch brass bronze canvas ceramic chrome copper cork cotton denim felt glass gold
    iron jute leather linen marble oak paper pearl pewter pine satin silk silver slate steel
    stone straw suede teak velvet walnut wicker willow wool
    """
)
_MADE = _words(
    """
    backed based bound braided capped clad coated covered edged faced fitted framed handled
    inlaid joined knotted lined mounted padded plated rimmed ringed set stitched striped
    tipped topped trimmed woven wrapped
    """
)
_THINGS = _words(
    """
    apron frame sandals bookcase jug sled camera mattress telescope cup pen vase easel rake
    basket hammer scooter bowl kite stool carpet necklace toaster desk plate watch flute rug
    bench helmet shoes bucket lantern table coat paddle trousers dumbbell racket armchair
    gloves saw boots kettle sofa candle mirror tent curtain pillow violin fan ring bathrobe
    hammock shelf bracelet ladder suitcase chair notebook towel doll puzzle whistle fork
    saddle blanket jacket skates cabinet mat teapot compass pan umbrella earrings radio
    backpack guitar scarf bottle keyboard spoon cardigan mug thermos cushion piano wallet
    flask rope bedspread headphones shirt brush lamp sweater clock oven tray drum quilt
    """
)
_USES = _words(
    """
    attic balcony beach camping festival garden holiday home kitchen office picnic studio
    toddler winter
    """
)


def brand_names(number: int) -> list[str]:
    """Names of brands, such as Alderbrook."""
    return _first(number, [name.capitalize() for name in _pairs(_NAMES, "", _PLACES)])


def common_words(number: int) -> list[str]:
    """Words that go with anything, such as classic."""
    return _first(number, _PLAIN)


def own_words(number: int) -> list[str]:
    """Words for what something is made of, such as oak-framed."""
    return _first(number, _pairs(_MATERIALS, "-", _MADE))


def categories_of(number: int) -> list[str]:
    """Kinds of things, such as lamp or garden lamp."""
    return _first(number, [*_THINGS, *_pairs(_USES, " ", _THINGS)])


def _pairs(firsts: list[str], joint: str, seconds: list[str]) -> list[str]:
    """All pairs, beginning with one for each of the firsts."""
    return [
        f"{first}{joint}{seconds[(place + turn) % len(seconds)]}"
        for turn in range(len(seconds))
        for place, first in enumerate(firsts)
    ]


def _first(number: int, words: list[str]) -> list[str]:
    """So many of the words; where there are too few they come again, numbered."""
    numbered = (f"{word} {turn}" for turn in count(2) for word in words)
    return list(islice(chain(words, numbered), number))
