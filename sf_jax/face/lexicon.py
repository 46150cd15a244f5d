"""English words for facial movement, as patterns: parts, movements, levels, emotions.

For `face/free_text.py`, which reads freely worded rationales. All patterns are of lower-case text.
A movement is what a part does: (part, kind of movement) → the actions it can mean.
"""

# Parts of the face. Earlier patterns win, so that "lower lip" is not "lip" and "lower".
_BROW = r"(?:eye\s?-?brows?|brows?)"
_PIECE = r"(?:ends?|parts?|corners?|portions?|halves|half|ones?|thirds?)"
_OF_BROW = rf"(?: of (?:the |her |his )?{_BROW})?"
PARTS: dict[str, str] = {
    "inner_brow": rf"inn?er (?:\w+ (?:of|on) )?(?:the |his |her |their |both )?"
    rf"(?:parts? of (?:the )?)?{_BROW}|inner {_PIECE}{_OF_BROW}"
    rf"|{_BROW} (?:centres?|centers?|heads?)|(?:middle|centre|center) of the (?:forehead|{_BROW})"
    rf"|medial {_BROW}|{_BROW} inner(?: ends?)?",
    "outer_brow": rf"outer (?:the |his |her |their )?{_BROW}"
    rf"|outer {_PIECE}{_OF_BROW}"
    rf"|{_BROW} tails?|tails? of the {_BROW}|lateral {_BROW}|{_BROW} outer(?: ends?)?",
    "brow": _BROW + r"|forehead",
    "upper_lid": r"(?:upper|top) (?:eye)?lids?",
    "lower_lid": r"(?:lower|bottom) (?:eye)?lids?",
    "lid": r"(?:eye)?lids?",
    "gaze": r"gaze|pupils?|glance|line of sight|iris(?:es)?|eyeballs?|look(?:s|ing)?",
    "corner": r"(?:mouth|lip|lips)(?:'s)? (?:corners?|ends?)"
    r"|corners? of (?:the |her |his |their )?(?:mouth|lips?)|(?:\bcorners?\b)"
    r"|ends? of (?:the |her |his )?mouth",
    "eye": r"eyes?",
    "cheek": r"cheeks?|cheekbones?",
    "nose": r"nose|nostrils?|nasolabial folds?|nasal \w+|nose bridge|bridge of the nose",
    "upper_teeth": r"(?:upper|top) (?:teeth|row of teeth|gums?)",
    "lower_teeth": r"(?:lower|bottom) (?:teeth|row of teeth|gums?)",
    "teeth": r"teeth",
    "upper_lip": r"(?:upper|top) lips?",
    "lower_lip": r"(?:lower|bottom|under) ?lips?",
    "chin": r"chin(?: boss)?|mentalis",
    "lips": r"lips?",
    "jaw": r"(?:lower )?jaws?|mandible",
    "tongue": r"tongue",
    "mouth": r"mouth",
    "head": r"head|face turned|face turns|whole head",
}

# Kinds of movement.
KINDS: dict[str, str] = {
    "press": r"press\w*|clamp\w*|squeez\w+ together|tight(?:en\w*|ly)? together|held tight",
    "pucker": r"pucker\w*|purs\w+|kiss\w*",
    "funnel": r"funnel\w*|round\w*|trumpet\w*|\bo-shape\w*|\bo shape\w*",
    "roll": r"roll\w*|suck\w*|fold(?:ed|ing|s)? (?:in|over)\w*|curl\w* (?:in|inwards?)\b"
    r"|tuck\w* (?:in|inwards?)\b between|bitten|biting|bites?|hidden|drawn in\b|inward roll\w*",
    "tuck": r"tuck\w*|dimpl\w*|go(?:es)? inside|dent\w*|dug in",
    "puff": r"puff\w*|inflat\w*|blow\w*|blown|fill(?:s|ed)? (?:out|with air)|bulg\w*|swell\w*"
    r"|swollen"
    r"|balloon\w*|have air|full of air|distend\w*",
    "wrinkle": r"wrinkl\w*|scrunch\w*|crinkl\w*|crumpl\w*|sneer\w*|flar\w*|crease\w*",
    "curl": r"curl\w*",
    "open_wide": r"wide[- ]open|very (?:wide )?open|open(?:ed)? (?:very )?wide\w*"
    r"|opened? more than"
    r"|open more|popping|pop(?:s|ped)?\b|stretched as wide|wide|widen\w*|widest|wider|bulging"
    r"|staring",
    "open": r"open\w*|agape|gap(?:e|es|ing)|parts|parted|parting|ajar|lowered open|yawn\w*",
    "close": r"clos\w+|shut\w*|seal\w*|kept together|held together|brought together|together|"
    r"(?:screwed|squeezed|pressed|clamped) shut|half-mast",
    "narrow": r"narrow\w*|squint\w*|tight\w*|tens\w+|pinch\w*|screw\w*(?: up)?|slits?|smaller"
    r"|squeez\w*"
    r"|little narrow|crinkl\w*",
    "knit": r"knit\w*|furrow\w*|(?:drawn|pulled|draw|pull|pulling|drawing|come|squeezed) "
    r"(?:in and )?(?:\w+ )?together|contract\w*|frown\w*",
    "forward": r"forwards?|jut\w*|thrust\w*|protru\w*|push\w* (?:out|forward)\w*"
    r"|stick\w* (?:out|forward)"
    r"|stuck out|jutt\w*|advanc\w*",
    "back_stretch": r"stretch\w*|sideways|widthways|lateral\w*|drawn back|pulled back"
    r"|draw\w* apart|backwards?|to the sides?|apart|retract\w*",
    "outward": r"outwards?",
    "ears": r"towards? (?:the |his |her )?ears|ear to ear",
    "inward": r"inwards?|towards? the nose|cross(?:ed|ing)?(?:-eyed)?|converg\w*",
    "push_up": r"push\w* up\w*|bunch\w*(?: up\w*)?|shov\w+ up\w*|shrug\w*|nudg\w+ up\w*",
    "up": r"(?:shot |shoot |go |gone |come |came )?\bup\b|upwards?|upturn\w*|rais\w*|lift\w*"
    r"|elevat\w*|climb\w*|ris(?:e|es|en|ing)|rose|"
    r"high(?:er)?|hoist\w*|arch\w*|soar\w*|hitch\w*|hik\w+|hoick\w*|uplift\w*|lofted|peaked",
    "down": r"\bdown\b|downwards?|downturn\w*|downcast|lower(?:ed|ing|s)|\blower\b|depress\w*"
    r"|droop\w*|sag\w*|sink\w*|sunk\w*|drop\w*|\blow\b|fall\w*|fell|descen\w*|hang\w*|cast\b"
    r"|bow(?:ed|s|ing)?\b"
    r"|slack(?:ened)|heavy",
    "shift": r"(?:drawn|pulled|pushed|dragged) (?:left|right)|shift\w*|drag\w*|yank\w*"
    r"|mov(?:ed|es)|slid\w*|slides?|displac\w*|nudg\w*|off to|goes|go|"
    r"drawn to|pulled to|pushed to|skew\w*|swing\w*|swung|deviat\w*|dart\w*|directed|lean\w*"
    r"|tilt\w*|"
    r"turn\w*|rotat\w*|cocked|loll\w*|tipp?ed|pitch\w*|thrown|glanc\w*|averted|look(?:s|ing)?"
    r"|to(?: [\w']+){0,3} "
    r"(?:left|right)|hard (?:left|right)|sideways|aside|inclin\w*|twist\w*|to one side",
    "out": r"\bout\b|protrud\w*|shown?|showing|visible|sticking|extend\w*|expos\w*|bared?|baring"
    r"|on show|can be seen|pok\w+|seen|appear\w*|slid off|off the teeth",
}

# (part, kind) → actions. Where several are given, any may be meant.
_BROWS = ("BrowInnerUp", "BrowOuterUp")
_ROLLS = ("MouthRollLower", "MouthRollUpper")
_SMILE = ("MouthSmile",)
MOVEMENTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("inner_brow", "up"): ("BrowInnerUp",), ("inner_brow", "down"): ("BrowDown",),
    ("inner_brow", "push_up"): ("BrowInnerUp",), ("inner_brow", "knit"): ("BrowDown",),
    ("inner_brow", "close"): ("BrowDown",),
    ("outer_brow", "up"): ("BrowOuterUp",), ("outer_brow", "down"): ("BrowDown",),
    ("brow", "up"): _BROWS, ("brow", "push_up"): _BROWS, ("brow", "down"): ("BrowDown",),
    ("brow", "knit"): ("BrowDown",), ("brow", "close"): ("BrowDown",),
    ("brow", "pucker"): ("BrowDown", "BrowInnerUp"),
    ("upper_lid", "up"): ("EyeWide",), ("upper_lid", "push_up"): ("EyeWide",),
    ("upper_lid", "open_wide"): ("EyeWide",),
    ("upper_lid", "down"): ("EyeBlink",), ("upper_lid", "close"): ("EyeBlink",),
    ("lower_lid", "up"): ("EyeSquint",), ("lower_lid", "narrow"): ("EyeSquint",),
    ("lower_lid", "push_up"): ("EyeSquint",),
    ("lid", "close"): ("EyeBlink",), ("lid", "down"): ("EyeBlink",),
    ("lid", "narrow"): ("EyeSquint",), ("lid", "open_wide"): ("EyeWide",),
    ("lid", "up"): ("EyeWide",), ("lid", "press"): ("EyeSquint",),
    ("eye", "close"): ("EyeBlink",), ("eye", "narrow"): ("EyeSquint",),
    ("eye", "open_wide"): ("EyeWide",), ("eye", "down"): ("EyeLookDown",),
    ("eye", "up"): ("EyeLookUp",), ("eye", "inward"): ("EyeLookIn",),
    ("eye", "press"): ("EyeSquint",), ("eye", "wrinkle"): ("EyeSquint",),
    ("eye", "shift"): ("Gaze",),
    ("gaze", "down"): ("EyeLookDown",), ("gaze", "up"): ("EyeLookUp",),
    ("gaze", "inward"): ("EyeLookIn",), ("gaze", "outward"): ("EyeLookOut",),
    ("eye", "outward"): ("EyeLookOut",), ("corner", "outward"): ("MouthStretch",),
    ("mouth", "outward"): ("MouthStretch",), ("lips", "outward"): ("MouthStretch", "MouthPucker"),
    ("gaze", "shift"): ("Gaze",),
    ("cheek", "up"): ("CheekSquint",), ("cheek", "push_up"): ("CheekSquint",),
    ("cheek", "narrow"): ("CheekSquint",), ("cheek", "puff"): ("CheekPuff",),
    ("cheek", "tuck"): ("MouthDimple",), ("cheek", "wrinkle"): ("CheekSquint",),
    ("nose", "wrinkle"): ("NoseSneer",), ("nose", "up"): ("NoseSneer",),
    ("nose", "narrow"): ("NoseSneer",), ("nose", "curl"): ("NoseSneer",),
    ("nose", "push_up"): ("NoseSneer",),
    ("corner", "up"): _SMILE, ("corner", "push_up"): _SMILE,
    ("corner", "curl"): _SMILE, ("corner", "down"): ("MouthFrown",),
    ("corner", "ears"): ("MouthSmile", "MouthStretch"),
    ("mouth", "ears"): ("MouthStretch", "MouthSmile"),
    ("lips", "ears"): ("MouthStretch", "MouthSmile"),
    ("corner", "back_stretch"): ("MouthStretch",), ("corner", "tuck"): ("MouthDimple",),
    ("corner", "inward"): ("MouthDimple",), ("corner", "narrow"): ("MouthDimple", "MouthPress"),
    ("corner", "roll"): ("MouthDimple",),
    ("upper_lip", "up"): ("MouthUpperUp", "MouthShrugUpper"),
    ("upper_lip", "curl"): ("MouthUpperUp",),
    ("upper_lip", "push_up"): ("MouthShrugUpper", "MouthUpperUp"),
    ("upper_lip", "roll"): ("MouthRollUpper",), ("upper_lip", "out"): ("MouthUpperUp",),
    ("upper_lip", "tuck"): ("MouthRollUpper",), ("upper_lip", "wrinkle"): ("MouthUpperUp",),
    ("upper_lip", "inward"): ("MouthRollUpper",),
    ("lower_lip", "down"): ("MouthLowerDown",), ("lower_lip", "up"): ("MouthShrugLower",),
    ("lower_lip", "push_up"): ("MouthShrugLower",), ("lower_lip", "roll"): ("MouthRollLower",),
    ("lower_lip", "forward"): ("MouthShrugLower", "MouthPucker"),
    ("lower_lip", "tuck"): ("MouthRollLower",), ("lower_lip", "inward"): ("MouthRollLower",),
    ("lips", "press"): ("MouthPress",), ("lips", "narrow"): ("MouthPress",),
    ("lips", "pucker"): ("MouthPucker",), ("lips", "forward"): ("MouthPucker", "MouthFunnel"),
    ("lips", "funnel"): ("MouthFunnel",), ("lips", "roll"): _ROLLS, ("lips", "tuck"): _ROLLS,
    ("lips", "inward"): _ROLLS, ("lips", "back_stretch"): ("MouthStretch", "MouthLowerDown"),
    ("lips", "open"): ("JawOpen", "MouthLowerDown", "MouthUpperUp", "MouthFunnel"),
    ("lips", "up"): (*_SMILE, "MouthUpperUp"), ("lips", "down"): ("MouthFrown", "MouthLowerDown"),
    ("lips", "shift"): ("Mouth",), ("lips", "curl"): (*_SMILE, "MouthUpperUp"),
    ("mouth", "open"): ("JawOpen",), ("mouth", "open_wide"): ("JawOpen",),
    ("mouth", "back_stretch"): ("MouthStretch",), ("mouth", "down"): ("MouthFrown",),
    ("mouth", "up"): _SMILE, ("mouth", "funnel"): ("MouthFunnel",),
    ("mouth", "pucker"): ("MouthPucker",), ("mouth", "press"): ("MouthPress",),
    ("mouth", "shift"): ("Mouth",), ("mouth", "tuck"): ("MouthDimple",),
    ("mouth", "forward"): ("MouthPucker", "MouthFunnel"), ("mouth", "narrow"): ("MouthPress",),
    ("mouth", "curl"): _SMILE, ("mouth", "push_up"): ("MouthShrugLower", "MouthShrugUpper"),
    ("jaw", "open"): ("JawOpen",), ("jaw", "open_wide"): ("JawOpen",),
    ("jaw", "down"): ("JawOpen",),
    ("jaw", "forward"): ("JawForward",), ("jaw", "shift"): ("Jaw",),
    ("chin", "up"): ("MouthShrugLower",), ("chin", "push_up"): ("MouthShrugLower",),
    ("chin", "wrinkle"): ("MouthShrugLower",), ("chin", "tuck"): ("MouthShrugLower",),
    ("chin", "forward"): ("JawForward", "MouthShrugLower"),
    ("chin", "narrow"): ("MouthShrugLower",),
    ("tongue", "out"): ("TongueOut",), ("tongue", "forward"): ("TongueOut",),
    ("head", "down"): ("HeadPitch+",), ("head", "forward"): ("HeadPitch+",),
    ("head", "up"): ("HeadPitch-",), ("head", "back_stretch"): ("HeadPitch-",),
    ("head", "shift"): ("Head",),
}  # fmt: skip

# Words that name a movement with its part.
SMILING = r"smil\w*|grins?|grinn\w+"
IDIOMS: dict[str, tuple[str, ...]] = {
    SMILING: _SMILE,
    r"frown\w*": ("MouthFrown", "BrowDown"),
    r"squint\w*": ("EyeSquint",),
    r"wink\w*|blink\w*": ("EyeBlink",),
    r"cross-?eyed": ("EyeLookIn",),
    r"pout\w*": ("MouthPucker", "MouthShrugLower", "MouthFrown", "MouthFunnel"),
    r"pucker\w*": ("MouthPucker", "BrowDown", "BrowInnerUp"),
    r"dimpl(?:e|es|er|ing)": ("MouthDimple",),
    r"sneer\w*|snarl\w*": ("NoseSneer", "MouthUpperUp"),
    r"scowl\w*": ("BrowDown", "MouthFrown"),
    r"duck ?face": ("MouthPucker",),
    r"inner (?:eye)?brow raiser|au ?1\b": ("BrowInnerUp",),
    r"outer (?:eye)?brow raiser|au ?2\b": ("BrowOuterUp",),
    r"(?:eye)?brow lowerer|au ?4\b|\+4\b": ("BrowDown",),
    r"upper lid raiser|au ?5\b": ("EyeWide",),
    r"cheek raiser|au ?6\b": ("CheekSquint",),
    r"lid tightener|au ?7\b": ("EyeSquint",),
    r"nose wrinkler|au ?9\b": ("NoseSneer",),
    r"upper lip raiser|au ?10\b": ("MouthUpperUp",),
    r"lip corner puller|au ?12\b": _SMILE,
    r"dimpler|au ?14\b": ("MouthDimple",),
    r"lip corner depressor|au ?15\b": ("MouthFrown",),
    r"lower lip depressor|au ?16\b": ("MouthLowerDown",),
    r"chin raiser|au ?17\b": ("MouthShrugLower", "MouthShrugUpper"),
    r"lip pucker(?:er)?|au ?18\b": ("MouthPucker",),
    r"tongue show|au ?19\b": ("TongueOut",),
    r"lip stretcher|au ?20\b": ("MouthStretch",),
    r"lip funneler|lip funneller|au ?22\b": ("MouthFunnel",),
    r"lip tightener|au ?23\b|lip pressor|au ?24\b": ("MouthPress",),
    r"lips? part|au ?25\b": ("JawOpen", "MouthLowerDown", "MouthUpperUp", "MouthFunnel"),
    r"jaw drop|mouth stretch|au ?26\b|au ?27\b": ("JawOpen",),
    r"lip suck|au ?28\b": _ROLLS,
    r"jaw thrust|au ?29\b|ad ?29\b": ("JawForward",),
    r"cheek (?:puff|blow)\w*|ad ?34\b|au ?34\b": ("CheekPuff",),
    r"eye closure|au ?43\b|au ?45\b|au ?46\b": ("EyeBlink",),
}

# Mentions that prove nothing but account for a movement that comes with them.
VAGUE: dict[str, tuple[str, ...]] = {
    r"laugh\w*|beam(?:s|ing)?|cheer\w*|smirk\w*|delighted": (*_SMILE, "JawOpen"),
    r"teeth": ("MouthUpperUp", "MouthLowerDown"),
    r"upper teeth|upper row": ("MouthUpperUp",),
    r"lower teeth|lower row": ("MouthLowerDown",),
    r"lips? (?:\w+ )?(?:closed|(?:kept |held |brought )?together|sealed|shut)|closed (?:lips"
    r"|mouth)|mouth (?:\w+ )?(?:closed|shut|sealed)"
    r"|clos\w* over": ("MouthClose", "MouthPress"),
    r"glar\w+": ("BrowDown", "EyeSquint"),
    r"scream\w*|shout\w*|yell\w*|yawn\w*|gasp\w*": ("JawOpen",),
}

# Levels: from the lowest to the highest that the word allows. Earlier patterns win.
LEVELS: dict[str, tuple[int, int]] = {
    r"moderate(?:ly)? to (?:strong|high|big|large)\w*|(?:middle|medium) to (?:big|strong"
    r"|high)\w*": (2, 3),
    r"(?:slight|mild|low|weak|small|faint|light)\w* to (?:moderate|medium|middle)\w*": (1, 2),
    r"a fair bit|quite a bit|to a fair degree|fairly|noticeabl[ey]|visibl[ey]|quite"
    r"|somewhat": (1, 3),
    r"more than half\w*|over half\w*": (2, 3),
    r"half\w*|midway|medium|middl\w+|moderat\w*|clear(?:ly)?|distinct(?:ly)?|mid-range"
    r"|intermediate"
    r"|to a degree|evident(?:ly)?|definite(?:ly)?|partial\w*|partly|well\b": (2, 2),
    r"ever so (?:slightly|gently)|slight(?:ly)?|faint(?:ly)?|subtl[ey]"
    r"|(?:just )?a little(?: bit)?|a bit|"
    r"a touch|touch of|a shade|a hair|a smidge|a fraction|a mite|a hint(?: of)?|hint of"
    r"|a trace(?: of)?|"
    r"trace of|a tad|a whisper|a suggestion|very little|only little|barely|hardly|scarcely"
    r"|minimal(?:ly)?|"
    r"mild(?:ly)?|light(?:ly)?|gentl[ey]|gently|soft(?:ly)?|small|minor|weak(?:ly)?"
    r"|low(?: intensity)?(?= at|"
    r" \()|just|negligible|little|faint|a notch|ghost of|tiny": (1, 1),
    r"strong(?:ly)?|full(?:y)?|complete(?:ly)?|hard|very|extreme(?:ly)?"
    r"|intense(?:ly)?|pronounced|"
    r"marked(?:ly)?|maximal(?:ly)?|maximum|maxed out|at most|deep(?:ly)?|firm(?:ly)?"
    r"|tight(?:ly)?|steep(?:ly)?"
    r"|broad(?:ly)?|wide(?:ly)?|massive(?:ly)?|heav(?:y|ily)|far|big|generous|sharp(?:ly)?"
    r"|all the way|"
    r"as far as|right (?:up|down|out)|high(?: intensity)?|vigorous(?:ly)?|forceful(?:ly)?"
    r"|great(?:ly)?|"
    r"enormous(?:ly)?|powerful(?:ly)?|utter(?:ly)?|total(?:ly)?|huge(?:ly)?": (3, 3),
}

NEGATIONS = (
    r"\bno\b|\bnot\b|n't\b|\bwithout\b|\bneither\b|\bnor\b|\bnone\b|\bnothing\b|\bnever\b|\bnil\b"
    r"|\black(?:s|ing)?\b|\babsen\w+|\bfree of\b|\bhardly takes part\b|\binstead of\b"
    r"|\brather than\b"
    r"|\bfar from\b|\bdevoid\b|\bhardly any\b"
)
RESTING = (
    r"relax\w*|neutral|at rest|inactive|unmoved|still|normal|quiet|slack\b|uninvolved|resting"
    r"|passive"
    r"|unremarkable|stays?|remains?|at ease|idle|unchanged|straight ahead|calm|unaffected"
    r"|in place"
)

# Emotions. `NAMED` also count in a headline, `SUGGESTED` in the emotion field alone.
NAMED: dict[str, str] = {
    "happiness": r"happ(?:y|ily|iness|ier)|joy\w*",
    "fear": r"fear\w*|afraid|terror|terrified|frighten\w*|fright|scared",
    "surprise": r"surpris\w*|astonish\w*|amaze\w*",
    "disgust": r"disgust\w*|revulsion|revolted",
    "anger": r"ang(?:er|ry|rily)|fur(?:y|ious\w*)|rage|enraged|wrath",
    "sadness": r"sad(?:ness|ly|dened)?|grief|sorrow\w*|griev\w+",
    "contempt": r"contempt\w*|disdain\w*|scorn\w*",
}
SUGGESTED: dict[str, str] = {
    "happiness": r"delight\w*|cheer\w*|amus\w*|pleasure|pleased|enjoy\w*|content(?:ed|ment)\b"
    r"|merr\w+|glee\w*"
    r"|elat\w+|gladness|glad|bliss\w*|warmth|mirth",
    "fear": r"anxi\w+|panic\w*|dread|horror|horrif\w+|alarm(?:ed)?\b|apprehens\w+|nervous\w*"
    r"|worr\w+",
    "surprise": r"shock\w*|startl\w*|awe\b|wonder\b",
    "disgust": r"distaste|aversion|repuls\w+|repugn\w+|nause\w+",
    "anger": r"irritat\w*|annoy\w*|frustrat\w*|hostil\w*|aggress\w*|outrage\w*|exasperat\w*"
    r"|resent\w*",
    "sadness": r"unhapp\w+|melanchol\w*|deject\w*|despair\w*|mourn\w*|gloom\w*|dismay|misery"
    r"|misera\w+"
    r"|disappoint\w*|despond\w*|heartbr\w+",
    "contempt": r"derisi\w+|superiority|smug\w*|mock(?:ery|ing)|sarcas\w+",
}
