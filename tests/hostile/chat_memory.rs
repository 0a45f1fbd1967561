//! What the library asks the system for before the template engine runs.

use cerebellum::chat::Message;

/// 96 bytes for each unit that a template may use up (`src/chat/engine.rs`).
pub fn asked_for(messages: &[Message]) -> usize {
    let bytes: usize = messages.iter().map(|message| message.content.len()).sum();
    96 * (200_000 + 2000 * messages.len() + bytes)
}
