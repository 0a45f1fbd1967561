"""The C interface (include/cerebellum.h) through ctypes: constants, structures and prototypes, in this one
place. tests/python/test_native.py compares them with the header."""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import (
    CFUNCTYPE, POINTER, Structure, c_bool, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t,
    c_uint32, c_uint64, c_void_p,
)
from typing import Any, Dict, List, Tuple

_NAMES = {"darwin": "libcerebellum.dylib", "win32": "cerebellum.dll"}
_NAME = _NAMES.get(sys.platform, "libcerebellum.so")
_BESIDE = os.path.join(os.path.dirname(os.path.abspath(__file__)), _NAME)

ABI_VERSION = 0

# Name: (key, kind). A bool is an int of the library's, 0 or 1; a seed is one without a sign.
OPTIONS: Dict[str, Tuple[int, str]] = {
    "access": (1, "word"),
    "verify": (2, "bool"),
    "context": (3, "int"),
    "cache": (4, "word"),
    "threads": (5, "int"),
    "chunk": (6, "int"),
    "all_logits": (7, "bool"),
    "isa": (8, "string"),
    "max_tokens": (9, "int"),
    "temperature": (10, "float"),
    "top_k": (11, "int"),
    "top_p": (12, "float"),
    "min_p": (13, "float"),
    "repetition_penalty": (14, "float"),
    "repetition_window": (15, "int"),
    "seed": (16, "seed"),
    "ignore_end_of_text": (17, "bool"),
    "parse_special": (18, "bool"),
    "draft": (19, "int"),
    "pooling": (20, "word"),
    "template": (21, "string"),
    "normalization": (22, "word"),
    "calibration": (23, "word"),
    "choices": (24, "string"),
    "regex": (25, "string"),
    "json_schema": (26, "string"),
    "template_tokens": (27, "int"),
    "date": (28, "string"),
    "thinking": (29, "bool"),
    "begin_of_text": (30, "bool"),
}
# The numbers of options whose values have names.
WORDS: Dict[str, Dict[str, int]] = {
    "access": {"map": 0, "read": 1},
    "cache": {"f16": 0, "int8": 1},
    "pooling": {"mean": 0, "last": 1},
    "normalization": {"sum": 0, "mean": 1},
    "calibration": {"none": 0, "content_free": 1, "mutual_information": 2},
}
# What takes time when a model is opened.
STAGES = {1: "read", 2: "verify"}


class ModelInfo(Structure):
    _fields_ = [
        ("architecture", c_char_p), ("digest", c_char_p), ("file_bytes", c_uint64),
        ("parameters", c_uint64), ("bits_per_weight", c_double), ("vocabulary", c_uint32),
        ("context", c_uint32), ("embedding", c_uint32), ("layers", c_uint32), ("heads", c_uint32),
        ("end_of_text", c_int32), ("has_tokenizer", c_bool), ("is_mapped", c_bool),
    ]


class MemoryPlan(Structure):
    _fields_ = [
        ("weights_bytes", c_uint64), ("cache_bytes", c_uint64), ("scratch_bytes", c_uint64),
        ("total_bytes", c_uint64),
    ]


class SessionStats(Structure):
    _fields_ = [
        ("isa", c_char_p), ("context", c_uint64), ("position", c_uint64), ("threads", c_uint64),
        ("evaluated_tokens", c_uint64), ("evaluation_seconds", c_double), ("prompt_tokens", c_uint64),
        ("prompt_seconds", c_double), ("generated_tokens", c_uint64), ("generation_seconds", c_double),
        ("stop_reason", c_int32), ("reserved", c_int32), ("guessed_tokens", c_uint64),
        ("right_guesses", c_uint64), ("pending_token", c_int64),
    ]


class TemplateResult(Structure):
    _fields_ = [
        ("parts", c_uint64), ("cut_parts", c_uint64), ("text_tokens", c_uint64),
        ("prompt_tokens", c_uint64), ("generated_tokens", c_uint64), ("seconds", c_double),
        ("stop_reason", c_int32), ("split", c_int32),
    ]


class ChatResult(Structure):
    _fields_ = [
        ("prompt_tokens", c_uint64), ("reused_tokens", c_uint64), ("generated_tokens", c_uint64),
        ("left_out", c_uint64), ("stop_reason", c_int32), ("reserved", c_int32),
    ]


class Step(Structure):
    _fields_ = [
        ("token", c_int64), ("text", c_void_p), ("length", c_size_t), ("logits", POINTER(c_float)),
        ("logits_count", c_size_t),
    ]


class BatchStep(Structure):
    _fields_ = [
        ("index", c_size_t), ("token", c_int64), ("text", c_void_p), ("length", c_size_t),
        ("reason", c_int32), ("status", c_int32),
    ]


ProgressCallback = CFUNCTYPE(c_bool, c_void_p, c_int32, c_uint64, c_uint64)
TextCallback = CFUNCTYPE(c_bool, c_void_p, c_void_p, c_size_t)
BatchTextCallback = CFUNCTYPE(c_bool, c_void_p, c_size_t, c_void_p, c_size_t)

_H, _S, _P = c_void_p, c_size_t, POINTER(c_void_p)
_MESSAGE = [c_char_p, c_size_t]
# Functions that return a status, with their arguments.
_STATUS: Dict[str, List[Any]] = {
    "cbl_options_new": [_P],
    "cbl_options_free": [_H],
    "cbl_options_set_int": [_H, c_int32, c_int64],
    "cbl_options_set_float": [_H, c_int32, c_double],
    "cbl_options_set_string": [_H, c_int32, c_char_p, _S],
    "cbl_options_add_stop": [_H, c_char_p, _S],
    "cbl_model_open": [c_char_p, _H, _P, *_MESSAGE],
    "cbl_model_open_fd_range": [c_int32, c_uint64, c_uint64, _H, _P, *_MESSAGE],
    "cbl_model_lock_memory": [_H, *_MESSAGE],
    "cbl_options_set_progress": [_H, ProgressCallback, c_void_p],
    "cbl_model_free": [_H],
    "cbl_model_get_info": [_H, POINTER(ModelInfo), _S],
    "cbl_model_plan": [_H, _H, POINTER(MemoryPlan), _S, *_MESSAGE],
    "cbl_model_verify": [_H, *_MESSAGE],
    "cbl_model_tokenize": [_H, _H, c_char_p, _S, POINTER(c_uint32), _S, POINTER(_S), *_MESSAGE],
    "cbl_model_detokenize": [_H, POINTER(c_uint32), _S, c_char_p, _S, POINTER(_S), *_MESSAGE],
    "cbl_session_new": [_H, _H, _P, *_MESSAGE],
    "cbl_session_fork": [_H, _H, _P],
    "cbl_session_free": [_H],
    "cbl_session_lock_memory": [_H],
    "cbl_session_reset": [_H],
    "cbl_session_rewind": [_H, _S],
    "cbl_session_tokens": [_H, POINTER(POINTER(c_uint32)), POINTER(_S)],
    "cbl_session_evaluate": [_H, POINTER(c_uint32), _S],
    "cbl_session_logits": [_H, POINTER(POINTER(c_float)), POINTER(_S)],
    "cbl_session_sample": [_H, _H, POINTER(c_uint32)],
    "cbl_session_cancel": [_H],
    "cbl_session_clear_cancel": [_H],
    "cbl_session_get_stats": [_H, POINTER(SessionStats), _S],
    "cbl_session_save": [_H, c_void_p, _S, POINTER(_S)],
    "cbl_session_restore": [_H, c_char_p, _S],
    "cbl_session_save_file": [_H, c_char_p],
    "cbl_session_restore_file": [_H, c_char_p],
    "cbl_generation_begin": [_H, _H, c_char_p, _S, POINTER(c_uint64)],
    "cbl_generation_begin_from_tokens": [_H, _H, POINTER(c_uint32), _S, POINTER(c_uint64)],
    "cbl_generation_next": [_H, c_uint64, POINTER(Step), _S, POINTER(c_int32)],
    "cbl_generation_end": [_H, c_uint64, POINTER(c_int32)],
    "cbl_top_tokens": [
        POINTER(c_float), _S, POINTER(c_uint32), POINTER(c_double), _S, POINTER(_S)
    ],
    "cbl_log_probabilities": [
        POINTER(c_float), _S, POINTER(c_uint32), _S, POINTER(c_double)
    ],
    "cbl_options_set_logit_bias": [_H, c_uint32, c_double],
    "cbl_template_named": [_H, c_char_p, _S, _P, *_MESSAGE],
    "cbl_template_new": [c_char_p, _S, _P, *_MESSAGE],
    "cbl_template_free": [_H],
    "cbl_apply_template": [
        _H, _H, _H, c_char_p, _S, TextCallback, c_void_p, POINTER(TemplateResult), _S
    ],
    "cbl_chat_tokens": [
        _H, _H, POINTER(c_char_p), POINTER(c_char_p), _S, POINTER(c_uint32), _S, POINTER(_S), *_MESSAGE
    ],
    "cbl_chat_answer": [
        _H, _H, POINTER(c_char_p), POINTER(c_char_p), _S, TextCallback, c_void_p, POINTER(ChatResult), _S
    ],
    "cbl_score_tokens": [
        _H, POINTER(c_uint32), _S, POINTER(c_uint32), POINTER(_S), _S, POINTER(c_double),
        POINTER(c_double)
    ],
    "cbl_score": [
        _H, _H, c_char_p, _S, POINTER(c_char_p), _S, POINTER(c_double), POINTER(_S)
    ],
    "cbl_embed": [_H, _H, c_char_p, _S, POINTER(c_float), _S, POINTER(_S)],
    "cbl_embed_tokens": [_H, _H, POINTER(c_uint32), _S, POINTER(c_float), _S, POINTER(_S)],
    "cbl_options_add_example": [_H, c_char_p, _S, c_char_p, _S],
    "cbl_classifier_new": [_H, _H, POINTER(c_char_p), _S, _P, *_MESSAGE],
    "cbl_classifier_free": [_H],
    "cbl_classify": [_H, _H, c_char_p, _S, POINTER(_S), POINTER(c_double), _S],
    "cbl_model_plan_batch": [_H, _H, _S, POINTER(MemoryPlan), _S, *_MESSAGE],
    "cbl_batch_new": [_H, _H, _S, _P, *_MESSAGE],
    "cbl_batch_free": [_H],
    "cbl_batch_begin": [_H, _H, POINTER(c_char_p), _S, POINTER(c_uint64)],
    "cbl_batch_begin_from_tokens": [
        _H, _H, POINTER(c_uint32), POINTER(_S), _S, POINTER(c_uint64)
    ],
    "cbl_batch_next": [_H, c_uint64, POINTER(BatchStep), _S, POINTER(c_bool)],
    "cbl_batch_stop": [_H, c_uint64, _S],
    "cbl_batch_end": [_H, c_uint64],
    "cbl_batch_lock_memory": [_H],
    "cbl_batch_cancel": [_H],
    "cbl_batch_clear_cancel": [_H],
    "cbl_batch_generate": [
        _H, _H, POINTER(c_char_p), _S, BatchTextCallback, c_void_p, POINTER(c_int32), POINTER(c_int32)
    ],
}
_OTHER: Dict[str, Tuple[Any, List[Any]]] = {
    "cbl_abi_version": (c_uint32, []),
    "cbl_version_string": (c_char_p, []),
    "cbl_has_constraints": (c_bool, []),
    "cbl_has_chat": (c_bool, []),
    "cbl_isa_name": (c_char_p, [_S]),
    "cbl_status_text": (c_char_p, [c_int32]),
    "cbl_stop_reason_name": (c_char_p, [c_int32]),
    "cbl_options_error": (c_char_p, [_H]),
    "cbl_session_error": (c_char_p, [_H]),
    "cbl_batch_error": (c_char_p, [_H]),
    "cbl_session_position": (_S, [_H]),
}


def _load() -> ctypes.CDLL:
    """Loads the library that CEREBELLUM_LIBRARY names, or the one beside this file, or the system's."""
    path = os.environ.get("CEREBELLUM_LIBRARY") or (_BESIDE if os.path.exists(_BESIDE) else _NAME)
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        advice = "set CEREBELLUM_LIBRARY to the path of the library, or install it beside the module with pip"
        raise ImportError(f"the cerebellum library cannot be loaded: {error}; {advice}") from error
    prototypes = [(name, c_int32, arguments) for name, arguments in _STATUS.items()]
    prototypes += [(name, *rest) for name, rest in _OTHER.items()]
    for name, result, arguments in prototypes:
        try:
            function = getattr(library, name)
        except AttributeError:
            advice = "it is older than this module: install both from the same version"
            raise ImportError(f"the cerebellum library {path} has no {name}(); {advice}") from None
        function.restype, function.argtypes = result, arguments
    if library.cbl_abi_version() != ABI_VERSION:
        version = library.cbl_version_string().decode()
        raise ImportError(
            f"the cerebellum library {path} {version} has interface {library.cbl_abi_version()}, and this "
            f"module needs interface {ABI_VERSION}: install both from the same version"
        )
    return library


library = _load()
