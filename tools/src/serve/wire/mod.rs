//! The JSON of requests and answers.

pub mod answer;
pub mod fields;
pub mod messages;
pub mod prompt;
pub mod sampling;
pub mod tools;
