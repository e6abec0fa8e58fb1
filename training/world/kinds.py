"""Which emoji make up the emoji world. Knows names, groups and source file names; draws nothing.

`KIND_TABLE` lists every object kind as `name: short_name[/fluent_name]` under its realm and group.
`short_name` is the key of the emoji-datasource packages; `fluent_name` is the SVG's file name in
`fluentui-emoji` where it differs from the name written with dashes. The groups follow the Unicode
subcategories, joined where a newcomer would use one word for both.
"""

KIND_TABLE: dict[str, dict[str, str]] = {
    "animal/mammal": {
        "cat": "cat/cat-face", "dog": "dog/dog-face", "pig": "pig/pig-face", "cow": "cow/cow-face",
        "tiger": "tiger/tiger-face", "rabbit": "rabbit/rabbit-face", "mouse": "mouse/mouse-face",
        "fox": "fox_face/fox", "bear": "bear", "panda": "panda_face/panda", "koala": "koala",
        "lion": "lion_face/lion", "monkey": "monkey_face/monkey-face", "elephant": "elephant",
        "giraffe": "giraffe_face/giraffe", "zebra": "zebra_face/zebra", "sheep": "sheep/ewe",
        "camel": "camel/two-hump-camel", "hedgehog": "hedgehog", "kangaroo": "kangaroo",
    },
    "animal/bird": {
        "chicken": "chicken", "penguin": "penguin", "eagle": "eagle", "duck": "duck", "owl": "owl",
        "parrot": "parrot", "flamingo": "flamingo",
    },
    "animal/sea animal": {
        "whale": "whale/spouting-whale", "octopus": "octopus", "dolphin": "dolphin",
        "crab": "crab", "shark": "shark", "turtle": "turtle",
    },
    "animal/bug": {
        "snail": "snail", "bee": "bee/honeybee", "ladybug": "ladybug/lady-beetle",
        "spider": "spider", "butterfly": "butterfly",
    },
    "plant/flower": {
        "tulip": "tulip", "rose": "rose", "sunflower": "sunflower",
        "daisy": "blossom/blossom",
    },
    "plant/tree": {
        "cactus": "cactus", "pine": "evergreen_tree/evergreen-tree", "palm": "palm_tree/palm-tree",
        "clover": "four_leaf_clover/four-leaf-clover",
        "mushroom": "mushroom",
    },
    "food/fruit": {
        "apple": "apple/red-apple", "banana": "banana", "grapes": "grapes", "lemon": "lemon",
        "orange": "tangerine/tangerine", "strawberry": "strawberry", "cherries": "cherries", "peach": "peach",
        "pineapple": "pineapple", "watermelon": "watermelon",
    },
    "food/vegetable": {
        "carrot": "carrot", "corn": "corn/ear-of-corn", "broccoli": "broccoli", "eggplant": "eggplant", "avocado": "avocado", "tomato": "tomato",
    },
    "food/meal": {
        "pizza": "pizza", "burger": "hamburger/hamburger", "taco": "taco", "fries": "fries/french-fries",
        "hotdog": "hotdog/hot-dog", "sushi": "sushi", "egg": "fried_egg/cooking", "pretzel": "pretzel", "cheese": "cheese_wedge/cheese-wedge",
    },
    "food/sweet": {
        "donut": "doughnut/doughnut", "cookie": "cookie", "cake": "birthday/birthday-cake", "cupcake": "cupcake",
    },
    "vehicle/car": {
        "car": "car/automobile", "bus": "bus", "taxi": "taxi", "ambulance": "ambulance",
        "tractor": "tractor", "truck": "truck/delivery-truck", "train": "train2/train",
        "bicycle": "bike/bicycle",
    },
    "vehicle/aircraft": {
        "airplane": "airplane", "helicopter": "helicopter", "rocket": "rocket",
        "ufo": "flying_saucer/flying-saucer", "parachute": "parachute",
    },
    "vehicle/boat": {
        "sailboat": "boat/sailboat", "ship": "ship",
    },
    "object/instrument": {
        "guitar": "guitar", "trumpet": "trumpet", "drum": "drum_with_drumsticks/drum",
        "saxophone": "saxophone", "piano": "musical_keyboard/musical-keyboard",
    },
    "object/sport": {
        "basketball": "basketball", "football": "football/american-football", "soccer": "soccer/soccer-ball", "bowling": "bowling", "trophy": "trophy",
    },
    "object/tool": {
        "hammer": "hammer", "scissors": "scissors", "axe": "axe", "key": "key",
        "magnet": "magnet", "lock": "lock/locked", "anchor": "anchor",
    },
    "object/clothing": {
        "hat": "tophat/top-hat", "shirt": "shirt/t-shirt", "dress": "dress", "shoe": "athletic_shoe/running-shoe",
        "crown": "crown", "glasses": "eyeglasses/glasses",
    },
    "object/device": {
        "camera": "camera", "television": "tv/television", "telephone": "phone/telephone",
        "lamp": "bulb/light-bulb", "clock": "alarm_clock/alarm-clock", "laptop": "computer/laptop",
    },
}
