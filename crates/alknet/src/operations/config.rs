//! `config/…`: the configuration of the node.

use std::sync::Arc;

use alknet_call::{CallError, Context, Nothing, Operation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Made;
use crate::{
    commands::serve::Reloader,
    config::{self, Config},
    control::Reloaded,
    failure::Failure,
};

/// The file is wrong.
const NOT_RELOADED: &str = "NOT_RELOADED";
/// The longest text that is checked, in bytes.
const MAX_TEXT: usize = 1 << 20;

/// The operations on the configuration.
pub(super) fn operations(reloader: &Arc<Reloader>) -> Made {
    let show = super::on(reloader, show);
    let reload = super::on(reloader, reload);
    Ok(vec![
        Operation::query("config/show", show)?.describe(
            "What holds now, the flags of the command line included. The node's keys are in no \
             configuration; a password in the address of a decoy is left out.",
        ),
        Operation::query("config/check", async |_: Context, text: Text| check(&text))?.describe(
            "Everything that is wrong with a configuration. The files that it names are not \
             looked at, unlike by the command.",
        ),
        Operation::mutation("config/reload", reload)?
            .describe(
                "Has the node read its configuration again. No session is dropped; what cannot \
                 change while it runs is named.",
            )
            .error(NOT_RELOADED, "The file is wrong, and the node goes on as it was."),
        Operation::query("config/reference", async |_: Context, _: Nothing| Ok(reference()))?
            .describe("Every key with its meaning and its default."),
    ])
}

/// The configuration in effect.
#[derive(Debug, Serialize, JsonSchema)]
struct Shown {
    /// What holds.
    config: Config,
    /// The keys whose values in the file wait for a restart.
    restart: Vec<String>,
}

async fn show(reloader: Arc<Reloader>, _: Context, _: Nothing) -> Result<Shown, CallError> {
    let shown = reloader.in_effect().await;
    let (config, restart) = shown.map_err(|failure| CallError::internal(failure.message()))?;
    Ok(Shown { config: config.without_secrets(), restart })
}

async fn reload(reloader: Arc<Reloader>, _: Context, _: Nothing) -> Result<Reloaded, CallError> {
    let refused = |failure: Failure| CallError::declared(NOT_RELOADED, failure.message());
    reloader.reload().await.map_err(refused)
}

/// A configuration to check.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Text {
    /// The content of an `alknet.toml`.
    text: String,
}

/// What is wrong with a configuration.
#[derive(Debug, Serialize, JsonSchema)]
struct Checked {
    /// Whether nothing is.
    valid: bool,
    /// In the order of the file.
    problems: Vec<Problem>,
}

/// Something that is wrong.
#[derive(Debug, Serialize, JsonSchema)]
struct Problem {
    /// The key, if it is about one.
    key: Value,
    /// The line in the text, from 1, if it is known.
    line: Value,
    /// What is wrong.
    message: Value,
    /// What to do about it.
    hint: Value,
}

fn check(Text { text }: &Text) -> Result<Checked, CallError> {
    if text.len() > MAX_TEXT {
        return Err(CallError::invalid_input(format!("the text has {MAX_TEXT} bytes at most")));
    }
    let problems = Config::problems_of(text);
    let problem = |problem: &config::Problem| {
        let mut value = serde_json::to_value(problem)?;
        let mut take = |name: &str| value.get_mut(name).map(Value::take).unwrap_or_default();
        let (key, line) = (take("key"), take("line"));
        Ok(Problem { key, line, message: take("message"), hint: take("hint") })
    };
    let problems: Result<Vec<Problem>, serde_json::Error> = problems.iter().map(problem).collect();
    let problems = problems.map_err(CallError::internal)?;
    Ok(Checked { valid: problems.is_empty(), problems })
}

/// The description of every key.
#[derive(Debug, Serialize, JsonSchema)]
struct Reference {
    /// An `alknet.toml` in which every key is a comment.
    text: String,
    /// The JSON Schema of the file.
    schema: Value,
}

fn reference() -> Reference {
    Reference { text: config::reference(), schema: config::schema().to_value() }
}
