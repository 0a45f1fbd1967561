//! C programs made from the header that call every function it declares: one misuses each, pointer by
//! pointer, and lets it panic; one calls it in every floating-point environment; one after the model's
//! file was changed. A function that is added without arguments for it here fails.

use std::fmt::Write as _;

use super::prototypes::{Parameter, Prototype};

/// Handles and arguments, and what each program does with a call.
const HEAD: &str = include_str!("calls_head.c");
const MISUSE: &str = include_str!("calls_misuse.c");
const ENVIRONMENTS: &str = include_str!("calls_environments.c");
const CHANGED: &str = include_str!("calls_changed.c");

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
        ("cbl_model_open_fd" | "cbl_model_open_fd_range", _, "fd") => "model_fd",
        ("cbl_model_open_fd_range", _, "offset") => "0",
        ("cbl_model_open_fd_range", _, "length") => "model_size",
        ("cbl_options_set_progress", _, "callback") => "see_progress",
        ("cbl_options_set_string", _, "key") => "CBL_OPTION_ISA",
        ("cbl_options_set_string", _, "value") => "\"scalar\"",
        ("cbl_options_set_string", _, "length") => "6",
        ("cbl_options_set_int", _, "key") => "CBL_OPTION_TOP_K",
        ("cbl_options_set_int", _, "value") => "40",
        ("cbl_options_set_float", _, "key") => "CBL_OPTION_TOP_P",
        ("cbl_options_set_float", _, "value") => "0.5",
        ("cbl_options_set_arena", _, "memory") => "arena",
        ("cbl_options_set_arena", _, "bytes") => "sizeof arena",
        ("cbl_model_copy_weights", _, "memory") => "arena",
        ("cbl_model_copy_weights", _, "bytes") => "sizeof arena",
        ("cbl_bare_start", _, "memory") => "arena",
        ("cbl_bare_start", _, "size") => "sizeof arena",
        ("cbl_bare_start", _, "on_panic") => "NULL",
        ("cbl_options_set_pool", _, "callback") => "serial",
        ("cbl_options_set_pool", _, "workers") => "2",
        ("cbl_options_set_log", _, "callback") => "see_log",
        ("cbl_options_add_stop", _, "stop") => "\"stop\"",
        ("cbl_options_add_stop", _, "length") => "4",
        ("cbl_options_set_logit_bias", _, "bias") => "1.5",
        ("cbl_template_named", _, "name") => "\"translate\"",
        ("cbl_template_named", _, "length") => "9",
        ("cbl_template_new", _, "text") => "TEMPLATE",
        ("cbl_template_new", _, "length") => "strlen(TEMPLATE)",
        ("cbl_template_free", ..) => "(f.spare_template = new_template())",
        ("cbl_apply_template", _, "size") => "sizeof applied",
        (_, "const char*const*", "roles") => "ROLES",
        (_, "const char*const*", "contents") => "TEXTS",
        ("cbl_chat_tokens" | "cbl_chat_answer", "size_t", "count") => "2",
        ("cbl_chat_tokens", _, "tokens") => "token_buffer",
        ("cbl_chat_tokens", _, "capacity") => "sizeof token_buffer / sizeof *token_buffer",
        ("cbl_chat_answer", _, "size") => "sizeof answered",
        (_, "cbl_chat_result*", _) => "&answered",
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
        (_, "cbl_step_callback", _) => "see_step",
        ("cbl_batch_begin", "size_t", "count") => "2",
        ("cbl_batch_next" | "cbl_batch_stop" | "cbl_batch_end", "uint64_t", _) => {
            "(f.batch_generation = new_batch_generation())"
        }
        (_, "uint64_t", "generation") => "(f.generation = new_generation())",
        (_, "uint64_t*", "generation") => "&f.generation",
        ("cbl_batch_next", "cbl_batch_step*", _) => "&batch_step",
        ("cbl_batch_next", _, "size") => "sizeof batch_step",
        ("cbl_batch_next", _, "more") => "&more",
        ("cbl_batch_stop", _, "index") => "1",
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
        (_, "cbl_text_callback", _) => "see_text",
        (_, "cbl_token_callback", _) => "see_token",
        (_, "cbl_logits_callback", _) => "see_logits",
        (_, "cbl_batch_text_callback", _) => "see_batch_text",
        (_, "cbl_batch_token_callback", _) => "see_batch_token",
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
    [
        "cbl_score_tokens",
        "cbl_batch_evaluate",
        "cbl_batch_generate_tokens",
        "cbl_batch_begin_from_tokens",
    ]
    .contains(&function)
}

/// Functions that need a tokenizer in the library.
fn needs_text(function: &str) -> bool {
    const TEXT: [&str; 17] = [
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
        "cbl_batch_begin",
        "cbl_template_new",
        "cbl_template_named",
        "cbl_template_free",
        "cbl_apply_template",
        "cbl_chat_tokens",
        "cbl_chat_answer",
    ];
    TEXT.contains(&function)
}

/// The arguments of a valid call, but for those that are replaced.
fn arguments<'a>(function: &Prototype, replace: Option<(usize, &'a str)>) -> Vec<&'a str> {
    let argument = |(i, parameter)| match replace {
        Some((at, with)) if at == i => with,
        _ => argument(&function.name, parameter),
    };
    function.parameters.iter().enumerate().map(argument).collect()
}

fn call(function: &Prototype, replace: Option<(usize, &str)>) -> String {
    format!("{}({})", function.name, arguments(function, replace).join(", "))
}

/// A handle that is made for the call, and how: `(f.template = new_template())`.
fn made_for_it(argument: &str) -> Option<(&str, &str)> {
    let assignment = argument.strip_prefix('(')?.strip_suffix(')')?;
    let (place, _) = assignment.split_once(" = ")?;
    Some((place, assignment))
}

/// A valid call whose handles were made before, and how.
fn prepared_call(function: &Prototype) -> (String, String) {
    let arguments = arguments(function, None);
    let made: String = arguments.iter().filter_map(|it| made_for_it(it)).fold(
        String::new(),
        |mut text, (_, assignment)| {
            let _ = write!(text, " {assignment};");
            text
        },
    );
    let places = arguments.iter().map(|it| made_for_it(it).map_or(*it, |(place, _)| place));
    (made, format!("{}({})", function.name, places.collect::<Vec<_>>().join(", ")))
}

/// The place of a handle that the function frees.
fn freed(function: &Prototype) -> Option<&'static str> {
    function.name.strip_suffix("_free")?;
    made_for_it(argument(&function.name, &function.parameters[0])).map(|(place, _)| place)
}

/// Places for results that are to be defined whatever comes of a call with these arguments: not arrays.
fn results<'a>(function: &Prototype, arguments: &[&'a str]) -> Vec<&'a str> {
    let pairs = function.parameters.iter().zip(arguments);
    let is_result = |(parameter, argument): &(&Parameter, &&str)| {
        let writes = parameter.kind.ends_with("**") || !parameter.kind.starts_with("const ");
        let is_place = argument.starts_with('&') || **argument == "token_buffer";
        parameter.is_pointer() && writes && is_place && parameter.name != "tokens"
    };
    pairs.filter(is_result).map(|(_, argument)| *argument).collect()
}

fn is_handle(parameter: &Parameter) -> bool {
    let kind = parameter.kind.trim_start_matches("const ");
    ["cbl_options*", "cbl_model*", "cbl_session*", "cbl_classifier*", "cbl_batch*", "cbl_template*"]
        .contains(&kind)
}

/// What a valid call gives: there is an operating system.
fn status_of_valid(function: &Prototype) -> &'static str {
    if function.name.starts_with("cbl_bare_") { "CBL_UNSUPPORTED" } else { "CBL_OK" }
}

/// What `NULL` for a parameter gives.
fn status_of_null(function: &Prototype, parameter: &Parameter) -> &'static str {
    match () {
        () if function.name == "cbl_bare_start" => status_of_valid(function),
        () if may_be_null(&function.name, parameter) => "CBL_OK",
        () if is_handle(parameter) => "CBL_BAD_HANDLE",
        () => "CBL_BAD_ARGUMENT",
    }
}

/// The program that misuses everything, and how many cases it has.
pub fn misuse_program(functions: &[Prototype]) -> (String, usize) {
    let (mut body, mut cases) = (String::new(), 0);
    for function in functions {
        let name = &function.name;
        let _ = writeln!(body, "\n  /* {} */", function.signature());
        let returns_status = function.returns == "cbl_status";
        if needs_text(name) {
            let _ = writeln!(body, "  if (cbl_has_text()) {{");
        }
        let mut add = |expected: &str, replace: Option<(usize, &str)>| {
            case(&mut body, function, expected, replace);
            cases += 1;
        };
        add(status_of_valid(function), None);
        for (i, parameter) in function.parameters.iter().enumerate().filter(|(_, p)| p.is_pointer())
        {
            add(status_of_null(function, parameter), Some((i, "NULL")));
            if is_handle(parameter) && returns_status {
                // Handles of other kinds.
                for wrong in ["f.options", "f.model", "f.session", "f.batch"] {
                    if !parameter.kind.contains(&wrong[2..]) {
                        add("CBL_BAD_HANDLE", Some((i, &format!("(void *){wrong}"))));
                    }
                }
            }
        }
        if needs_text(name) {
            let _ = writeln!(body, "  }}");
        }
        // What makes a handle for the call must not panic itself.
        let (made, panics) = prepared_call(function);
        let _ = match returns_status {
            true => writeln!(body, "  PANICS({{{made}}}, {panics});"),
            false => writeln!(body, "  PANICS_QUIETLY({panics});"),
        };
        cases += 1;
    }
    (program(MISUSE, "", &format!("{body}\n  poisoned_handles();\n")), cases)
}

fn case(body: &mut String, function: &Prototype, expected: &str, replace: Option<(usize, &str)>) {
    let call = call(function, replace);
    // Whether pages may be locked is for the system to say.
    let is_open = expected == "CBL_OK" && function.name.ends_with("_lock_memory");
    if function.returns != "cbl_status" || is_open {
        let _ = writeln!(body, "  VALUE({call});");
        return;
    }
    let results = results(function, &arguments(function, replace));
    let each = |what: &str| {
        let each: Vec<_> = results.iter().map(|place| format!("{what}({place})")).collect();
        if each.is_empty() { "(void)0".to_owned() } else { each.join(", ") }
    };
    let (undefine, check) = (each("UNDEFINE"), each("CHECK_DEFINED"));
    let _ = writeln!(body, "  CASE({expected}, {call}, ({undefine}), ({check}));");
}

/// The program that calls everything in every floating-point environment.
pub fn environments_program(functions: &[Prototype]) -> String {
    let (mut calls, mut body) = (String::new(), String::new());
    for function in functions {
        let Prototype { name, returns, .. } = function;
        let (made, call) = prepared_call(function);
        let see = match returns.as_str() {
            "const char*" => "see(came, came ? strlen(came) : 0)",
            _ => "see(&came, sizeof came)",
        };
        let forget = freed(function).map_or(String::new(), |place| format!(" {place} = NULL;"));
        let _ = writeln!(
            calls,
            "static void call_{name}(void) {{\n  {made}\n  {returns} came = {call};\n  \
             check_environment();\n  {see};{forget}\n}}"
        );
        let uses_options = |p: &Parameter| {
            ["const cbl_options*", "const cbl_classifier*"].contains(&p.kind.as_str())
        };
        let variants = if function.parameters.iter().any(uses_options) { "VARIANTS" } else { "1" };
        let run = format!("same_in_every_environment(\"{name}\", call_{name}, {variants});");
        let _ = writeln!(body, "  {}{run}", if_text(function));
    }
    program(ENVIRONMENTS, &calls, &body)
}

/// The program that calls everything after the model's file was changed.
pub fn changed_program(functions: &[Prototype]) -> String {
    let (mut calls, mut body) = (String::new(), String::new());
    // What has no use here fails with any file.
    for function in functions.iter().filter(|it| status_of_valid(it) == "CBL_OK") {
        let name = &function.name;
        let (made, call) = prepared_call(function);
        let call = match function.returns.as_str() {
            "cbl_status" => format!("cbl_status status = {call};"),
            _ => format!("(void){call}; cbl_status status = CBL_OK;"),
        };
        let forget = freed(function).map_or(String::new(), |place| format!(" {place} = NULL;"));
        let _ = writeln!(
            calls,
            "static void make_{name}(void) {{{made}}}\nstatic cbl_status call_{name}(void) {{\n  \
             {call}{forget}\n  return status;\n}}"
        );
        // Opening opens another file, which was not changed.
        let opens = name.starts_with("cbl_model_open");
        let lists_it = !opens && function.documentation.contains("CBL_MODEL_CHANGED");
        let _ = writeln!(
            body,
            "  {}survives_a_changed_file(\"{name}\", {lists_it}, make_{name}, call_{name});",
            if_text(function),
        );
    }
    program(CHANGED, &calls, &body)
}

fn if_text(function: &Prototype) -> &'static str {
    if needs_text(&function.name) { "if (cbl_has_text()) " } else { "" }
}

fn program(kind: &str, functions: &str, body: &str) -> String {
    let main = "int main(int argc, char **argv) {\n  set_up(argc, argv);\n";
    format!("{HEAD}\n{kind}\n{functions}\n{main}{body}  return tear_down();\n}}\n")
}
