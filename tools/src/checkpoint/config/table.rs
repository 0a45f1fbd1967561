//! Tables of names that `config.json` may have, and what each means.

use cerebellum::format::Activation;

/// Names of activation functions accepted. Three of Hugging Face's are the same tanh form,
/// written differently.
pub const ACTIVATIONS: &[(&str, Activation)] = &[
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
];

/// The name in `config.json`, of several the one most used.
pub fn activation_name(activation: Activation) -> &'static str {
    let known = ACTIVATIONS.iter().find(|(_, known)| *known == activation);
    known.expect("every activation has a name").0
}

/// What `name` means.
pub fn lookup<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// All names of a table, for messages.
pub fn names<T>(table: &[(&str, T)]) -> String {
    table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
