//! What is called with, and what comes back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The payload of every call and the item of every subscription, by serde and by protobuf.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Note {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) tags: Vec<String>,
    #[prost(string, tag = "4")]
    pub(crate) note: String,
}

/// How a subscription is asked for: so many items with notes of so many characters.
#[derive(Clone, Copy, PartialEq, prost::Message, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Wanted {
    #[prost(uint64, tag = "1")]
    pub(crate) items: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) length: u64,
}

impl Note {
    pub(crate) fn new(id: u64, length: usize) -> Self {
        let text = "A plain sentence, as people write them. ".chars().cycle();
        Self {
            id,
            name: "somebody@example.org".to_owned(),
            tags: ["draft", "work", "later"].map(str::to_owned).into(),
            note: text.take(length).collect(),
        }
    }

    /// What the servers answer, so that both ends look into it.
    pub(crate) fn answer(self) -> Self {
        Self { id: self.id + 1, ..self }
    }
}

impl Wanted {
    /// The items.
    pub(crate) fn notes(self) -> impl Iterator<Item = Note> + Send + 'static {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        let note = Note::new(0, length);
        (0..self.items).map(move |id| Note { id, ..note.clone() })
    }
}
