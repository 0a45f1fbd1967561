"""Conversations. The tests' model has a chat template of its own: the end-of-text token, which is token 0, is
behind each message."""

import json
import unittest

import cerebellum
from cerebellum import Status
from support import SHORT, model, status_of

SYSTEM = {"role": "system", "content": "Be brief."}
HELLO = {"role": "user", "content": "<|endoftext|> Hello"}


class Chat(unittest.TestCase):
    def test_only_the_template_writes_control_tokens(self):
        tokens = model.chat_tokens([SYSTEM, HELLO], date="2025-01-31", thinking=None)
        self.assertEqual(tokens.count(0), 2)
        text = "System:Be brief.<|endoftext|>\nUser:<|endoftext|> Hello<|endoftext|>\nAssistant:"
        self.assertEqual(model.detokenize(tokens).decode(), text)

    def test_answers(self):
        session = model.session(context=128)
        answer = session.chat([SYSTEM, HELLO], **SHORT)
        self.assertEqual(answer.stop_reason, "max_tokens")
        before = session.position
        more = [SYSTEM, HELLO, {"role": "assistant", "content": answer}, {"role": "user", "content": "And?"}]
        pieces = list(session.stream_chat(more, **SHORT))
        self.assertGreater(session.position, before)
        self.assertTrue("".join(pieces))
        self.assertEqual(model.chat([SYSTEM, HELLO], **SHORT), answer)
        if cerebellum.has_constraints():
            self.assertIn(session.chat([HELLO], choices=["yes", "no"]).strip(), ("yes", "no"))
            schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
                      "additionalProperties": False}
            answer = session.chat([HELLO], json_schema=schema, max_tokens=60)
            self.assertEqual(answer.stop_reason, "complete")
            self.assertIsInstance(json.loads(answer)["n"], int)
            text = "".join(session.stream_chat([HELLO], json_schema=schema, max_tokens=60))
            self.assertEqual(text, answer)

    def test_what_a_template_refuses_is_an_error(self):
        session = model.session(context=32)
        for call in (
            lambda: model.chat([SYSTEM]),
            lambda: list(session.stream_chat([HELLO, SYSTEM])),
            lambda: model.chat_tokens([HELLO, HELLO]),
        ):
            self.assertEqual(status_of(call), Status.BAD_OPTION)
        long = {"role": "user", "content": "word " * 100}
        self.assertEqual(status_of(lambda: session.chat([long])), Status.CONTEXT_FULL)

    def test_messages_are_checked(self):
        for messages, error in (
            ("Hello", TypeError), ({"role": "user", "content": "x"}, TypeError), (["Hello"], TypeError),
            ([{"role": "user"}], TypeError), ([{"role": "user", "content": "x", "name": "y"}], TypeError),
            ([{"role": "tool", "content": "x"}], ValueError), ([{"role": "user", "content": 7}], TypeError),
            ([{"role": "user", "content": "a\0b"}], ValueError),
        ):
            with self.assertRaises(error, msg=repr(messages)):
                model.chat_tokens(messages)

    def test_options_are_checked(self):
        session = model.session(context=32)
        with self.assertRaisesRegex(TypeError, "pooling"):
            session.chat([HELLO], pooling="mean")
        with self.assertRaises(cerebellum.OptionError):
            session.chat([HELLO], date="tomorrow")


if __name__ == "__main__":
    unittest.main()
