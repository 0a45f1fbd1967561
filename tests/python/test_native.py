"""The module's constants and prototypes are those of the header."""

import re
import unittest

from cerebellum import Status, _native, options
from support import REPOSITORY

HEADER = (REPOSITORY / "include" / "cerebellum.h").read_text()
CODE = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.DOTALL)


def constants(prefix):
    return {name: int(value) for name, value in re.findall(rf"\b{prefix}_([A-Z0-9_]+) = (\d+)", CODE)}


class Native(unittest.TestCase):
    def test_statuses(self):
        enum = re.search(r"typedef int32_t cbl_status;\s*enum \{(.*?)\}", CODE, re.DOTALL)[1]
        statuses = {name: int(value) for name, value in re.findall(r"CBL_(\w+) = (\d+)", enum)}
        self.assertEqual({status.name: status.value for status in Status}, statuses)

    def test_options(self):
        keys = {name.lower(): key for name, key in constants("CBL_OPTION").items()}
        self.assertEqual({name: key for name, (key, _) in _native.OPTIONS.items()}, keys)
        placed = [name for place, _ in options._PLACES for name in place.__annotations__]
        unplaced = set(keys) - set(placed)
        self.assertEqual(unplaced, set(), "say in options.py where they belong")
        self.assertEqual(set(placed) - set(keys), {"stop", "logit_bias", "examples"})
        for option, words in _native.WORDS.items():
            self.assertEqual({w.upper(): n for w, n in words.items()}, constants(f"CBL_{option.upper()}"))

    def test_the_library_knows_every_option_of_the_header(self):
        with options.NativeOptions({}) as made:
            for name, key in constants("CBL_OPTION").items():
                if _native.library.cbl_options_set_int(made._open, key, -1):
                    message = _native.library.cbl_options_error(made._open).decode()
                    self.assertIn(name.lower(), message.replace(" ", "_"))

    def test_stages(self):
        self.assertEqual({word.upper(): n for n, word in _native.STAGES.items()}, constants("CBL_STAGE"))

    def test_prototypes(self):
        functions = dict(re.findall(r"\b(cbl_\w+)\(([^)]*)\);", CODE))
        ours = dict(_native._STATUS)
        ours.update({name: arguments for name, (_, arguments) in _native._OTHER.items()})
        for name, arguments in ours.items():
            declared = functions[name].strip()
            count = 0 if declared == "void" else declared.count(",") + 1
            self.assertEqual(len(arguments), count, name)

    def test_structures(self):
        for name, structure in (
            ("cbl_model_info", _native.ModelInfo), ("cbl_memory_plan", _native.MemoryPlan),
            ("cbl_session_stats", _native.SessionStats), ("cbl_template_result", _native.TemplateResult),
            ("cbl_step", _native.Step), ("cbl_chat_result", _native.ChatResult),
        ):
            body = re.search(rf"\}} {name};", CODE)
            fields = CODE[CODE.rindex("typedef struct {", 0, body.start()):body.start()]
            names = re.findall(r"(\w+);", fields)
            self.assertEqual([field[0] for field in structure._fields_], names, name)


if __name__ == "__main__":
    unittest.main()
