# ruff: noqa: E501 (a table)
"""What a generated shop may sell: kinds of products with their words, attributes, options and prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_COLORS = ("black", "white", "navy", "grey", "red", "olive green", "sky blue", "rose gold", "wine red", "khaki", "beige",
           "light brown", "dark purple", "burgundy", "teal", "army green", "coral pink", "ivory")  # fmt: skip
_SIZES = ("x-small", "small", "medium", "large", "x-large", "xx-large", "3x-large")
_SHOES = ("6", "6.5", "7", "7.5", "8", "8.5", "9", "10", "11 wide", "12 wide")
_FLAVORS = ("original", "sea salt", "dark chocolate", "honey mustard", "peanut butter", "vanilla bean", "ginger lime",
            "wild berry", "smoked paprika", "apple cinnamon")  # fmt: skip
_PACKS = ("1 pack", "2 pack", "3 pack", "6 pack", "12 pack")
_SCENTS = ("lavender", "unscented", "green tea", "citrus", "cedarwood", "jasmine")
_OUNCES = ("2 ounce", "4 ounce", "8 ounce", "12 ounce", "16 ounce")
_INCHES = ('12" x 18"', '16" x 24"', '20" x 30"', '24" x 36"', '30" x 45"')
_LENGTHS = ("3 ft", "6 ft", "10 ft", "15 ft", "25 ft")
_STORAGE = ("32 gb", "64 gb", "128 gb", "256 gb")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of product."""

    category: str
    query: str
    path: str  # product category
    things: tuple[str, ...]  # what a title calls it
    materials: tuple[str, ...]  # nouns that stand before the thing
    purposes: tuple[str, ...]  # what it is for, in nouns
    attributes: tuple[str, ...]
    options: Mapping[str, tuple[str, ...]]
    prices: tuple[int, int]  # dollars


def _kind(
    category: str, query: str, path: str, things: str, materials: str, purposes: str, attributes: str,
    options: Mapping[str, tuple[str, ...]], prices: tuple[int, int],
) -> Kind:  # fmt: skip
    def split(words: str) -> tuple[str, ...]:
        return tuple(words.split(", "))

    return Kind(
        category, query, path, split(things), split(materials), split(purposes), split(attributes), options, prices
    )


_CLOTHING = "machine wash, hand wash, long sleeve, short sleeve, slim fit, loose fit, elastic waist, classic fit, "
_FOOD = "gluten free, sugar free, non gmo, low carb, dairy free, soy free, plant based, individually wrapped, "
_CARE = "cruelty free, paraben free, sulfate free, alcohol free, long lasting, natural ingredients, easy use, "
_DEVICE = (
    "fast charging, high speed, easy use, easy install, plug play, high definition, noise cancelling, long lasting, "
)
_HOME = "easy clean, easy assemble, space saving, machine washable, non slip, eco friendly, heavy duty, white item, "
_WEAR = {"color": _COLORS, "size": _SIZES}

KINDS = (
    _kind("fashion", "women's dresses", "Clothing › Women › Dresses", "dress, sundress, maxi dress, gown",
          "cotton, linen, chiffon, satin", "summer, party, beach, evening",
          _CLOTHING + "polyester spandex, unique design, high waist, lace trim", _WEAR, (15, 60)),
    _kind("fashion", "men's t-shirts", "Clothing › Men › Shirts › T-Shirts", "t-shirt, tee, crew shirt, graphic tee",
          "cotton, jersey, bamboo, heather", "gym, travel, work, weekend",
          _CLOTHING + "needle sleeve, moisture wicking, crew neck, quick drying", _WEAR, (8, 35)),
    _kind("fashion", "men's pants", "Clothing › Men › Pants", "pants, trousers, chinos, joggers",
          "twill, denim, fleece, canvas", "hiking, office, golf, travel",
          _CLOTHING + "relaxed fit, straight leg, button closure, drawstring closure", _WEAR, (20, 70)),
    _kind("fashion", "women's sandals", "Clothing › Women › Shoes › Sandals", "sandals, slides, wedges, flip flops",
          "leather, suede, cork, rope", "beach, garden, holiday, pool",
          "open toe, ankle strap, rubber sole, memory foam, high heel, arch support, closed toe, faux fur",
          {"color": _COLORS, "size": _SHOES}, (18, 80)),
    _kind("fashion", "men's sneakers", "Clothing › Men › Shoes › Fashion Sneakers", "sneakers, trainers, runners, shoes",
          "mesh, canvas, leather, knit", "gym, street, court, trail",
          "non slip, rubber outsole, lace closure, memory foam, arch support, ankle support, water resistant, slip on",
          {"color": _COLORS, "size": _SHOES}, (30, 120)),
    _kind("grocery", "snack bars", "Grocery › Snacks › Bars", "snack bars, granola bars, protein bars, oat bars",
          "almond, oat, coconut, quinoa", "breakfast, lunchbox, hikers, office",
          _FOOD + "high protein, artificial flavors, nut free, keto friendly",
          {"flavor name": _FLAVORS, "size": _PACKS}, (5, 40)),
    _kind("grocery", "tea", "Grocery › Beverages › Tea", "tea bags, loose tea, herbal tea, iced tea",
          "hibiscus, chamomile, ginger, mint", "morning, winter, guests, bedtime",
          _FOOD + "caffeine free, certified organic, kosher certified, resealable bag",
          {"flavor name": _FLAVORS, "size": _OUNCES}, (4, 30)),
    _kind("grocery", "nuts & seeds", "Grocery › Snacks › Nuts", "mixed nuts, cashews, trail mix, pistachios",
          "walnut, pecan, hazelnut, pumpkin", "movie nights, road trips, baking, gifts",
          _FOOD + "dry roasted, lightly salted, low sodium, simple ingredients",
          {"flavor name": _FLAVORS, "size": _OUNCES}, (6, 45)),
    _kind("beauty", "shampoo", "Beauty › Hair Care › Shampoo", "shampoo, conditioner, hair mask, scalp scrub",
          "argan, keratin, biotin, coconut", "curls, salon, family, scalp",
          _CARE + "hair growth, damaged hair, dry hair, tea tree", {"scent": _SCENTS, "size": _OUNCES}, (6, 40)),
    _kind("beauty", "body lotion", "Beauty › Skin Care › Body", "body lotion, body butter, hand cream, body oil",
          "shea, aloe, oatmeal, jojoba", "winter, hands, spa, babies",
          _CARE + "dry skin, sensitive skin, hyaluronic acid, fine lines", {"scent": _SCENTS, "size": _OUNCES}, (5, 35)),
    _kind("beauty", "makeup brushes", "Beauty › Tools › Brushes", "makeup brushes, brush set, powder brush, blender sponge",
          "bamboo, nylon, velvet, crystal", "eyes, face, travel, beginners",
          "cruelty free, synthetic hair, easy carry, storage case, eye shadow, high quality, rose gold, non toxic",
          {"color": _COLORS, "size": _PACKS}, (7, 45)),
    _kind("electronics", "charging cables", "Electronics › Accessories › Cables", "charging cable, usb cable, phone cord, adapter",
          "nylon, braid, copper, silicone", "car, desk, phone, tablet",
          _DEVICE + "gold plated, usb port, heavy duty, aluminum alloy", {"color": _COLORS, "size": _LENGTHS}, (6, 35)),
    _kind("electronics", "headphones", "Electronics › Audio › Headphones", "headphones, earbuds, headset, earphones",
          "foam, titanium, leather, graphene", "sports, studio, gaming, commuters",
          _DEVICE + "hands free, stereo sound, wireless bluetooth, water resistant",
          {"color": _COLORS, "style": ("corded", "wireless", "over ear", "in ear")}, (15, 160)),
    _kind("electronics", "memory cards", "Electronics › Storage › Memory Cards", "memory card, flash drive, storage card, usb stick",
          "metal, ceramic, steel, carbon", "camera, drone, console, dashcam",
          _DEVICE + "water resistant, ultra hd, shock proof, easy carry", {"color": _COLORS, "size": _STORAGE}, (8, 90)),
    _kind("garden", "throw pillows", "Home › Bedding › Throw Pillows", "throw pillow, pillow cover, cushion, bolster",
          "velvet, linen, corduroy, faux fur", "sofa, bedroom, patio, nursery",
          _HOME + "super soft, double sided, living room, exquisite workmanship",
          {"color": _COLORS, "size": _INCHES}, (9, 50)),
    _kind("garden", "wall art", "Home › Decor › Wall Art", "wall art, canvas print, poster, wood sign",
          "canvas, walnut, bamboo, metal", "office, hallway, kitchen, dorm",
          _HOME + "ready hang, dining room, living room, wood frame", {"color": _COLORS, "size": _INCHES}, (12, 110)),
    _kind("garden", "console tables", "Home › Furniture › Tables", "console table, sofa table, entry table, side table",
          "oak, pine, steel, marble", "hallway, foyer, studio, loft",
          _HOME + "solid wood, storage space, assembly required, coated steel", {"color": _COLORS}, (60, 400)),
    _kind("garden", "area rugs", "Home › Decor › Area Rugs", "area rug, runner rug, floor mat, carpet",
          "jute, wool, shag, cotton", "nursery, kitchen, porch, den",
          _HOME + "stain resistant, living room, easy care, fade resistant", {"color": _COLORS, "size": _INCHES}, (20, 220)),
)  # fmt: skip
