//! What is said in a conversation, and by whom.

use alloc::string::String;

use crate::error::Result;
use crate::memory;

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Whoever made the program: how to answer.
    System,
    /// Who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name that templates know.
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }

    /// The role of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::System, Self::User, Self::Assistant].into_iter().find(|role| role.name() == name)
    }
}

/// Something that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// By whom.
    pub role: Role,
    /// What.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }

    /// As [`new`](Self::new), with a copy of the text.
    pub(crate) fn copy(role: Role, content: &str) -> Result<Self> {
        Ok(Self { role, content: memory::copy(content)? })
    }
}
