//! Which scenarios of the MCP conformance suite apply to a node. The README of
//! `alknet-http` says the same in words.

/// The current revision of the protocol, and the last one with sessions.
const BOTH: &[&str] = &["2026-07-28", "2025-11-25"];
const CURRENT: &[&str] = &["2026-07-28"];
const LEGACY: &[&str] = &["2025-11-25"];

/// A scenario to be passed.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) versions: &'static [&'static str],
    /// Checks of it that do not apply.
    pub(super) without: &'static [&'static str],
}

const fn whole(name: &'static str, versions: &'static [&'static str]) -> Scenario {
    Scenario { name, versions, without: &[] }
}

pub(super) const APPLIES: &[Scenario] = &[
    whole("server-initialize", LEGACY),
    whole("server-session-lifecycle", LEGACY),
    whole("ping", LEGACY),
    Scenario {
        name: "server-stateless",
        versions: CURRENT,
        // No operation needs a capability of the client.
        without: &[
            "sep-2575-server-rejects-undeclared-capability",
            "sep-2575-missing-capability-http-400",
        ],
    },
    whole("tools-list", BOTH),
    whole("tools-call-simple-text", BOTH),
    whole("tools-call-error", BOTH),
    whole("tools-call-with-progress", BOTH),
    whole("json-schema-2020-12", BOTH),
    whole("server-sse-multiple-streams", BOTH),
    whole("dns-rebinding-protection", BOTH),
    Scenario {
        name: "caching",
        versions: CURRENT,
        // There are neither prompts nor resources.
        without: &[
            "sep-2549-prompts-list-caching-hints",
            "sep-2549-resources-list-caching-hints",
            "sep-2549-resources-templates-list-caching-hints",
            "sep-2549-resources-read-caching-hints",
        ],
    },
    whole("http-header-validation", CURRENT),
    whole("http-custom-header-server-validation", CURRENT),
];

/// What does not apply, and why. A name that ends in `*` is all that begin so.
pub(super) const LEFT_OUT: &[(&[&str], &str)] = &[
    (
        &[
            "tools-call-image",
            "tools-call-audio",
            "tools-call-embedded-resource",
            "tools-call-mixed-content",
        ],
        "operations give JSON, never images, sounds or resources",
    ),
    (
        &[
            "tools-call-sampling",
            "tools-call-elicitation",
            "elicitation-*",
            "input-required-result-*",
        ],
        "an operation asks its caller's model and user nothing",
    ),
    (&["prompts-*", "completion-complete"], "there are no prompts"),
    (&["resources-*", "sep-2164-resource-not-found"], "there are no resources"),
    (&["logging-set-level", "tools-call-with-logging"], "the log is the node's, not the client's"),
    (&["server-sse-polling"], "a dropped answer ends the operation, so none is taken up again"),
    (&["tasks-*", "sep-2640-skills-*"], "extensions that are not offered"),
];

/// Whether one of the names is this one.
pub(super) fn matches(names: &[&str], name: &str) -> bool {
    names.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => *pattern == name,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

    use super::*;

    #[test]
    fn the_readme_names_all_that_is_left_out_and_why() {
        let readme = include_str!("../../../crates/alknet-http/README.md");
        let words: Vec<&str> = readme.split_whitespace().collect();
        let readme = words.join(" ");
        for (names, reason) in LEFT_OUT {
            assert!(readme.contains(reason), "{reason}");
            for name in *names {
                assert!(readme.contains(&format!("`{name}`")), "{name}");
            }
        }
        for name in APPLIES.iter().flat_map(|scenario| scenario.without) {
            assert!(readme.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn a_star_is_any_ending() {
        assert!(matches(&["a", "tasks-*"], "tasks-lifecycle"));
        assert!(!matches(&["task", "asks-*"], "tasks-lifecycle"));
    }
}
