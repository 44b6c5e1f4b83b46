"""The recipes of TextCraft: a book of our own, in the manner of Minecraft's workbench.

Items that no recipe makes are raw: they can be had for the asking. No item is needed, however indirectly, to make
itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Recipe:
    """So many of an item, from ingredients.

    Attributes:
        item: what is made.
        number: how many at once.
        ingredients: (item, number), in the order of the book.
    """

    item: str
    number: int
    ingredients: tuple[tuple[str, int], ...]

    @property
    def command(self) -> str:
        """The action that follows it."""
        using = ", ".join(f"{number} {item}" for item, number in self.ingredients)
        return f"craft {self.number} {self.item} using {using}"


WOODS = ("acacia", "birch", "cherry", "oak", "spruce")
DYES = {
    "black": "ink sac",
    "blue": "cornflower",
    "brown": "cocoa beans",
    "green": "cactus",
    "orange": "orange tulip",
    "red": "poppy",
    "white": "bone meal",
    "yellow": "dandelion",
}
STONES = {"blackstone": "blackstone", "brick": "bricks", "sandstone": "sandstone", "stone": "stone"}
TOOL_HEADS = {"diamond": "diamond", "golden": "gold ingot", "iron": "iron ingot", "stone": "cobblestone"}
ARMOUR = {"diamond": "diamond", "golden": "gold ingot", "iron": "iron ingot", "leather": "leather"}

_WOODEN = """
4 {wood} planks: 1 {wood} log
3 {wood} wood: 4 {wood} log
4 stick: 2 {wood} planks
1 {wood} button: 1 {wood} planks
3 {wood} door: 6 {wood} planks
2 {wood} trapdoor: 6 {wood} planks
1 {wood} pressure plate: 2 {wood} planks
6 {wood} slab: 3 {wood} planks
4 {wood} stairs: 6 {wood} planks
1 {wood} boat: 5 {wood} planks
3 {wood} fence: 4 {wood} planks, 2 stick
1 {wood} fence gate: 2 {wood} planks, 4 stick
3 {wood} sign: 6 {wood} planks, 1 stick
1 {wood} boat with chest: 1 {wood} boat, 1 chest
6 {wood} shelf: 6 {wood} planks, 2 iron nugget
1 chest: 8 {wood} planks
1 crafting table: 4 {wood} planks
4 bowl: 3 {wood} planks
1 barrel: 6 {wood} planks, 2 {wood} slab
1 composter: 7 {wood} slab
"""
_COLOURED = """
1 {colour} dye: 1 {plant}
8 {colour} stained glass: 8 glass, 1 {colour} dye
16 {colour} stained glass pane: 6 {colour} stained glass
8 {colour} terracotta: 8 terracotta, 1 {colour} dye
8 {colour} concrete powder: 4 sand, 4 gravel, 1 {colour} dye
1 {colour} candle: 1 candle, 1 {colour} dye
1 {colour} wool: 1 undyed wool, 1 {colour} dye
3 {colour} carpet: 2 {colour} wool
1 {colour} banner: 6 {colour} wool, 1 stick
1 {colour} bed: 3 {colour} wool, 3 oak planks
"""
_STONE = """
6 {name} slab: 3 {stone}
4 {name} stairs: 6 {stone}
6 {name} wall: 6 {stone}
"""
_TOOLS = """
1 {name} pickaxe: 3 {head}, 2 stick
1 {name} axe: 3 {head}, 2 stick
1 {name} hoe: 2 {head}, 2 stick
1 {name} shovel: 1 {head}, 2 stick
1 {name} sword: 2 {head}, 1 stick
"""
_ARMOUR = """
1 {name} helmet: 5 {stuff}
1 {name} chestplate: 8 {stuff}
1 {name} leggings: 7 {stuff}
1 {name} boots: 4 {stuff}
"""
_OTHERS = """
1 bricks: 4 brick
1 sandstone: 4 sand
9 iron nugget: 1 iron ingot
9 gold nugget: 1 gold ingot
1 undyed wool: 4 string
1 candle: 1 string, 1 honeycomb
4 torch: 1 stick, 1 coal
4 soul torch: 1 torch, 1 soul soil
1 lantern: 8 iron nugget, 1 torch
1 soul lantern: 8 iron nugget, 1 soul torch
1 campfire: 3 stick, 1 coal, 3 oak log
3 ladder: 7 stick
1 furnace: 8 cobblestone
1 blast furnace: 5 iron ingot, 1 furnace, 3 smooth stone
1 smoker: 4 oak log, 1 furnace
1 lever: 1 stick, 1 cobblestone
1 piston: 3 oak planks, 4 cobblestone, 1 iron ingot, 1 redstone dust
1 sticky piston: 1 piston, 1 slime ball
1 dispenser: 7 cobblestone, 1 bow, 1 redstone dust
1 dropper: 7 cobblestone, 1 redstone dust
1 observer: 6 cobblestone, 2 redstone dust, 1 quartz
1 redstone torch: 1 redstone dust, 1 stick
1 repeater: 3 stone, 2 redstone torch, 1 redstone dust
1 comparator: 3 stone, 3 redstone torch, 1 quartz
1 daylight detector: 3 glass, 3 quartz, 3 oak slab
1 note block: 8 oak planks, 1 redstone dust
1 jukebox: 8 oak planks, 1 diamond
1 tripwire hook: 1 iron ingot, 1 stick, 1 oak planks
1 trapped chest: 1 chest, 1 tripwire hook
1 hopper: 5 iron ingot, 1 chest
1 minecart: 5 iron ingot
1 minecart with chest: 1 minecart, 1 chest
1 minecart with furnace: 1 minecart, 1 furnace
1 minecart with hopper: 1 minecart, 1 hopper
16 rail: 6 iron ingot, 1 stick
6 powered rail: 6 gold ingot, 1 stick, 1 redstone dust
6 activator rail: 6 iron ingot, 2 stick, 1 redstone torch
6 detector rail: 6 iron ingot, 1 stone pressure plate, 1 redstone dust
1 stone pressure plate: 2 stone
1 bow: 3 stick, 3 string
4 arrow: 1 flint, 1 stick, 1 feather
2 spectral arrow: 4 glowstone dust, 1 arrow
1 crossbow: 3 stick, 2 string, 1 iron ingot, 1 tripwire hook
1 shield: 6 oak planks, 1 iron ingot
1 fishing rod: 3 stick, 2 string
1 carrot on a stick: 1 fishing rod, 1 carrot
1 shears: 2 iron ingot
1 bucket: 3 iron ingot
1 cauldron: 7 iron ingot
1 compass: 4 iron ingot, 1 redstone dust
1 clock: 4 gold ingot, 1 redstone dust
1 lodestone: 1 compass, 8 chiseled stone
1 map: 8 paper, 1 compass
3 paper: 3 sugar cane
1 book: 3 paper, 1 leather
1 bookshelf: 6 oak planks, 3 book
1 lectern: 4 oak slab, 1 bookshelf
1 writable book: 1 book, 1 ink sac, 1 feather
1 enchanting table: 1 book, 2 diamond, 4 obsidian
1 cartography table: 4 oak planks, 2 paper
1 fletching table: 4 oak planks, 2 flint
1 smithing table: 4 oak planks, 2 iron ingot
1 loom: 2 oak planks, 2 string
1 grindstone: 2 stick, 1 stone slab, 2 oak planks
1 stonecutter: 3 stone, 1 iron ingot
1 armor stand: 6 stick, 1 stone slab
1 item frame: 8 stick, 1 leather
1 glow item frame: 1 item frame, 1 glow ink sac
1 painting: 8 stick, 1 white wool
4 lead: 4 string, 1 slime ball
1 bread: 3 wheat
1 hay bale: 9 wheat
1 target: 1 hay bale, 4 redstone dust
8 cookie: 2 wheat, 1 cocoa beans
1 sugar: 1 sugar cane
1 cake: 3 milk, 2 sugar, 1 egg, 3 wheat
1 pumpkin pie: 1 pumpkin, 1 sugar, 1 egg
1 jack o'lantern: 1 pumpkin, 1 torch
1 mushroom stew: 1 red mushroom, 1 brown mushroom, 1 bowl
1 beetroot soup: 6 beetroot, 1 bowl
1 rabbit stew: 1 cooked rabbit, 1 carrot, 1 baked potato, 1 brown mushroom, 1 bowl
1 golden carrot: 8 gold nugget, 1 carrot
1 golden apple: 8 gold ingot, 1 apple
1 glistering melon slice: 8 gold nugget, 1 melon slice
1 fermented spider eye: 1 spider eye, 1 brown mushroom, 1 sugar
1 leather horse armor: 7 leather
1 bundle: 1 string, 1 leather
1 beehive: 6 oak planks, 3 honeycomb
1 flower pot: 3 brick
3 glass bottle: 3 glass
16 glass pane: 6 glass
1 spyglass: 2 copper ingot, 1 amethyst shard
1 lightning rod: 3 copper ingot
1 brush: 1 feather, 1 copper ingot, 1 stick
1 tnt: 4 sand, 5 gunpowder
1 minecart with tnt: 1 minecart, 1 tnt
3 fire charge: 1 gunpowder, 1 blaze powder, 1 coal
1 magma cream: 1 slime ball, 1 blaze powder
2 blaze powder: 1 blaze rod
1 ender eye: 1 ender pearl, 1 blaze powder
1 ender chest: 8 obsidian, 1 ender eye
1 brewing stand: 3 cobblestone, 1 blaze rod
1 beacon: 5 glass, 1 nether star, 3 obsidian
16 iron bars: 6 iron ingot
1 chain: 2 iron nugget, 1 iron ingot
1 iron door: 6 iron ingot
1 anvil: 3 iron block, 4 iron ingot
1 iron block: 9 iron ingot
1 bell: 3 stick, 5 gold ingot, 1 stone slab
1 scaffolding: 6 bamboo, 1 string
"""


def _lines() -> Iterator[str]:
    for wood in WOODS:
        yield from _WOODEN.format(wood=wood).splitlines()
    for colour, plant in DYES.items():
        yield from _COLOURED.format(colour=colour, plant=plant).splitlines()
    for name, stone in STONES.items():
        yield from _STONE.format(name=name, stone=stone).splitlines()
    for wood in WOODS:
        yield from _TOOLS.format(name="wooden", head=f"{wood} planks").splitlines()
    for name, head in TOOL_HEADS.items():
        yield from _TOOLS.format(name=name, head=head).splitlines()
    for name, stuff in ARMOUR.items():
        yield from _ARMOUR.format(name=name, stuff=stuff).splitlines()
    yield from _OTHERS.splitlines()


def _amount(text: str) -> tuple[str, int]:
    number, item = text.strip().split(" ", 1)
    return item, int(number)


@cache
def book() -> dict[str, tuple[Recipe, ...]]:
    """All recipes, by the item that they make, in the order of the book."""
    recipes: dict[str, tuple[Recipe, ...]] = {}
    for line in filter(None, _lines()):
        made, _, using = line.partition(": ")
        item, number = _amount(made)
        ingredients = tuple(_amount(part) for part in using.split(","))
        recipes[item] = (*recipes.get(item, ()), Recipe(item, number, ingredients))
    return recipes


@cache
def depth(item: str) -> int:
    """How many crafts deep an item is: 0 if raw, else one more than its deepest ingredient by the best recipe."""
    recipes = book().get(item, ())
    return min((1 + max(depth(part) for part, _ in recipe.ingredients) for recipe in recipes), default=0)
