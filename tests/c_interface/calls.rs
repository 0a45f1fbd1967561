//! A C program made from the header that misuses every function it declares, pointer by pointer, and
//! lets every one of them panic. A function that is added without arguments for it here fails.

use std::fmt::Write as _;

use super::prototypes::{Parameter, Prototype};

const HEAD: &str = include_str!("calls_head.c");

/// What to pass for a valid call, in terms of the fixture in `calls_head.c`.
fn argument(function: &str, parameter: &Parameter) -> &'static str {
    match (function, parameter.kind.as_str(), parameter.name.as_str()) {
        ("cbl_model_open", _, "path") => "model_path",
        ("cbl_session_save_file" | "cbl_session_restore_file", _, "path") => "saved_path",
        ("cbl_options_free", ..) => "(f.spare_options = new_options())",
        ("cbl_model_free", ..) => "(f.spare_model = open_model(model_path))",
        ("cbl_session_free", ..) => "(f.spare_session = new_session(f.model, NULL))",
        ("cbl_classifier_free", ..) => "(f.spare_classifier = new_classifier())",
        ("cbl_batch_free", ..) => "(f.spare_batch = new_batch())",
        ("cbl_session_save", _, "buffer") => "saved",
        ("cbl_session_save", _, "capacity") => "sizeof saved",
        ("cbl_session_restore", _, "data") => "saved",
        ("cbl_session_restore", _, "size") => "saved_size",
        ("cbl_model_open_memory", _, "data") => "model_bytes",
        ("cbl_model_open_memory", _, "size") => "model_size",
        ("cbl_model_open_fd", _, "fd") => "model_fd",
        ("cbl_options_set_string", _, "key") => "CBL_OPTION_ISA",
        ("cbl_options_set_string", _, "value") => "\"scalar\"",
        ("cbl_options_set_string", _, "length") => "6",
        ("cbl_options_set_int", _, "key") => "CBL_OPTION_TOP_K",
        ("cbl_options_set_int", _, "value") => "40",
        ("cbl_options_set_float", _, "key") => "CBL_OPTION_TOP_P",
        ("cbl_options_set_float", _, "value") => "0.5",
        ("cbl_options_set_arena", _, "memory") => "arena",
        ("cbl_options_set_arena", _, "bytes") => "sizeof arena",
        ("cbl_options_set_pool", _, "callback") => "serial",
        ("cbl_options_set_pool", _, "workers") => "2",
        ("cbl_options_set_log", _, "callback") => "ignore_log",
        ("cbl_options_add_stop", _, "stop") => "\"stop\"",
        ("cbl_options_add_stop", _, "length") => "4",
        ("cbl_options_set_logit_bias", _, "bias") => "1.5",
        ("cbl_template_named", _, "name") => "\"translate\"",
        ("cbl_template_named", _, "length") => "9",
        ("cbl_template_new", _, "text") => "TEMPLATE",
        ("cbl_template_new", _, "length") => "strlen(TEMPLATE)",
        ("cbl_template_free", ..) => "(f.spare_template = new_template())",
        ("cbl_apply_template", _, "size") => "sizeof applied",
        ("cbl_log_probabilities" | "cbl_top_tokens", _, "count") => {
            "sizeof LOGITS / sizeof *LOGITS"
        }
        ("cbl_top_tokens", _, "tokens") => "token_buffer",
        ("cbl_top_tokens", _, "capacity") => "5",
        ("cbl_session_rewind", _, "position") => "1",
        ("cbl_options_add_example", _, "label") => "\"c\"",
        ("cbl_options_add_example", _, "label_length") => "1",
        ("cbl_batch_rewind", _, "position") => "1",
        ("cbl_score", _, "lengths") => "sizes",
        ("cbl_score_tokens", _, "each") => "more_numbers",
        ("cbl_score_tokens", _, "prompt_count") => "3",
        ("cbl_classify", _, "capacity") => "sizeof numbers / sizeof *numbers",
        ("cbl_embed" | "cbl_embed_tokens", _, "capacity") => "sizeof floats / sizeof *floats",
        ("cbl_batch_sample", _, "token") => "token_buffer",
        ("cbl_batch_tokens" | "cbl_batch_logits", "size_t*", _) => "&count",
        ("cbl_classifier_new" | "cbl_score" | "cbl_batch_generate", "size_t", "count") => "2",
        (_, "size_t", "count") if takes_lists(function) => "2",
        ("cbl_model_detokenize", "char*", "text") => "text_buffer",
        ("cbl_model_detokenize", _, "capacity") => "sizeof text_buffer",
        ("cbl_model_token_bytes", _, "bytes") => "&bytes",
        ("cbl_status_text", ..) => "CBL_BUSY",
        ("cbl_stop_reason_name", ..) => "CBL_STOP_CANCELLED",
        ("cbl_isa_name", ..) => "0",
        ("cbl_model_get_info", _, "size") => "sizeof info",
        ("cbl_model_plan" | "cbl_model_plan_batch", _, "size") => "sizeof plan",
        ("cbl_session_get_stats", _, "size") => "sizeof stats",
        (_, "cbl_model_info*", _) => "&info",
        (_, "cbl_memory_plan*", _) => "&plan",
        (_, "cbl_session_stats*", _) => "&stats",
        (_, "cbl_options**", _) => "&f.spare_options",
        (_, "cbl_model**", _) => "&f.spare_model",
        (_, "cbl_session**", _) => "&f.spare_session",
        (_, "cbl_classifier**", _) => "&f.spare_classifier",
        (_, "cbl_batch**", _) => "&f.spare_batch",
        (_, "cbl_template**", _) => "&f.spare_template",
        (_, "const cbl_template*", _) => "(f.template = new_template())",
        (_, "cbl_template_result*", _) => "&applied",
        (_, "cbl_step_callback", _) => "ignore_step",
        (_, "uint64_t", "generation") => "f.generation",
        (_, "uint64_t*", "generation") => "&f.generation",
        ("cbl_generation_next", "cbl_step*", _) => "&step",
        ("cbl_generation_next", _, "size") => "sizeof step",
        (_, "const float*", "logits") => "LOGITS",
        (_, "uint32_t", "token") => "5",
        (_, "cbl_options*" | "const cbl_options*", _) => "f.options",
        (_, "const cbl_model*", _) => "f.model",
        (_, "const cbl_classifier*", _) => "(f.classifier = new_classifier())",
        (_, "cbl_batch*" | "const cbl_batch*", _) => "f.batch",
        (_, "cbl_session*" | "const cbl_session*", _) => "f.session",
        (_, "char*", "message") => "message",
        (_, "size_t", "message_size") => "sizeof message",
        (_, "cbl_text_callback", _) => "ignore_text",
        (_, "cbl_token_callback", _) => "ignore_token",
        (_, "cbl_logits_callback", _) => "ignore_logits",
        (_, "cbl_batch_text_callback", _) => "ignore_batch_text",
        (_, "cbl_batch_token_callback", _) => "ignore_batch_token",
        (_, "void*", "user") => "text_buffer",
        (_, "cbl_status*", _) => "statuses",
        (_, "cbl_stop_reason*", "reasons") => "reasons",
        (_, "const char*", "text" | "prompt") => "\"a b\"",
        (_, "size_t", "length") => "3",
        (_, "const char*const*", _) => "TEXTS",
        (_, "const size_t*", "lengths") => "LENGTHS",
        (_, "const size_t*", "sequences") => "SEQUENCES",
        (_, "size_t", "sequence") => "0",
        (_, "size_t", "sequences") => "2",
        (_, "double*", _) => "numbers",
        (_, "float*", _) => "floats",
        (_, "cbl_stop_reason*", _) => "&reason",
        (_, "const uint32_t*", "tokens" | "prompt") => "TOKENS",
        ("cbl_model_tokenize", "uint32_t*", _) => "token_buffer",
        ("cbl_model_tokenize", _, "capacity") => "64",
        (_, "size_t", "count") => "3",
        (_, "size_t", "token_count") => "2",
        (_, "uint32_t*", "token") => "token_buffer",
        (_, "const uint32_t**", _) => "&tokens",
        (_, "const float**", _) => "&logits",
        (_, "size_t*", _) => "&count",
        _ => panic!("{function}: say in {} what to pass for {parameter:?}", file!()),
    }
}

/// Whether the header says that it may be NULL.
fn may_be_null(function: &str, parameter: &Parameter) -> bool {
    match parameter.name.as_str() {
        "reason" => function != "cbl_generation_next",
        "message" | "user" | "reasons" | "statuses" | "each" => true,
        "lengths" => function == "cbl_score",
        "log_probabilities" => function == "cbl_top_tokens",
        "prepared" => function == "cbl_template_free",
        "classifier" => function == "cbl_classifier_free",
        "batch" => function == "cbl_batch_free",
        "options" => parameter.kind == "const cbl_options*" || function == "cbl_options_free",
        "model" => function == "cbl_model_free",
        "session" => function == "cbl_session_free",
        "callback" | "memory" => function.starts_with("cbl_options_set_"),
        _ => false,
    }
}

/// Functions that take lists of tokens, which lie one after another, by their lengths.
fn takes_lists(function: &str) -> bool {
    ["cbl_score_tokens", "cbl_batch_evaluate", "cbl_batch_generate_tokens"].contains(&function)
}

/// Functions that need a tokenizer in the library.
fn needs_text(function: &str) -> bool {
    const TEXT: [&str; 14] = [
        "cbl_model_tokenize",
        "cbl_generate",
        "cbl_generation_begin",
        "cbl_score",
        "cbl_embed",
        "cbl_classifier_new",
        "cbl_classifier_free",
        "cbl_classify",
        "cbl_options_add_example",
        "cbl_batch_generate",
        "cbl_template_new",
        "cbl_template_named",
        "cbl_template_free",
        "cbl_apply_template",
    ];
    TEXT.contains(&function)
}

fn call(function: &Prototype, replace: Option<(usize, &str)>) -> String {
    let argument = |(i, parameter)| match replace {
        Some((at, with)) if at == i => with,
        _ => argument(&function.name, parameter),
    };
    let arguments: Vec<_> = function.parameters.iter().enumerate().map(argument).collect();
    format!("{}({})", function.name, arguments.join(", "))
}

fn is_handle(parameter: &Parameter) -> bool {
    let kind = parameter.kind.trim_start_matches("const ");
    ["cbl_options*", "cbl_model*", "cbl_session*", "cbl_classifier*", "cbl_batch*", "cbl_template*"]
        .contains(&kind)
}

/// What `NULL` for a parameter gives.
fn status_of_null(function: &Prototype, parameter: &Parameter) -> &'static str {
    match () {
        () if may_be_null(&function.name, parameter) => "CBL_OK",
        () if is_handle(parameter) => "CBL_BAD_HANDLE",
        () => "CBL_BAD_ARGUMENT",
    }
}

/// The whole program, and how many cases it has.
pub fn program(functions: &[Prototype]) -> (String, usize) {
    let (mut body, mut cases) = (String::new(), 0);
    for function in functions {
        let name = &function.name;
        let _ = writeln!(body, "\n  /* {} */", function.signature());
        let returns_status = function.returns == "cbl_status";
        if needs_text(name) {
            let _ = writeln!(body, "  if (cbl_has_text()) {{");
        }
        match function.returns.as_str() {
            "cbl_status" => case(&mut body, &mut cases, "CBL_OK", &call(function, None)),
            _ => value(&mut body, &mut cases, &call(function, None)),
        }
        for (i, parameter) in function.parameters.iter().enumerate().filter(|(_, p)| p.is_pointer())
        {
            let null = call(function, Some((i, "NULL")));
            match returns_status {
                true => {
                    case(&mut body, &mut cases, status_of_null(function, parameter), &null);
                }
                false => value(&mut body, &mut cases, &null),
            }
            if is_handle(parameter) && returns_status {
                // Handles of other kinds.
                for wrong in ["f.options", "f.model", "f.session", "f.batch"] {
                    if !parameter.kind.contains(&wrong[2..]) {
                        let wrong = call(function, Some((i, &format!("(void *){wrong}"))));
                        case(&mut body, &mut cases, "CBL_BAD_HANDLE", &wrong);
                    }
                }
            }
        }
        if needs_text(name) {
            let _ = writeln!(body, "  }}");
        }
        // What makes a handle to be freed must not panic itself.
        let prepare = match name.strip_suffix("_free") {
            Some(_) => argument(name, &function.parameters[0]),
            None => "(void)0",
        };
        let spare = format!("f.{}", name.replace("cbl_", "spare_").replace("_free", ""));
        let panics = call(function, name.ends_with("_free").then_some((0, spare.as_str())));
        let _ = match returns_status {
            true => writeln!(body, "  PANICS({prepare}, {panics});"),
            false => writeln!(body, "  PANICS_QUIETLY({});", call(function, None)),
        };
        cases += 1;
    }
    let main = "int main(int argc, char **argv) {\n  set_up(argc, argv);\n";
    (format!("{HEAD}\n{main}{body}\n  poisoned_handles();\n  return tear_down();\n}}\n"), cases)
}

fn case(body: &mut String, cases: &mut usize, status: &str, call: &str) {
    let _ = writeln!(body, "  CASE({status}, {call});");
    *cases += 1;
}

fn value(body: &mut String, cases: &mut usize, call: &str) {
    let _ = writeln!(body, "  VALUE({call});");
    *cases += 1;
}
