//! From the text to the configuration, with everything that is wrong instead of the first
//! thing only.

use std::{ops::Range, path::Path};

use serde::Deserialize as _;
use serde_json::Value;
use toml::de::{DeTable, DeValue, Deserializer};

use super::{
    Config,
    problem::{Problem, Wrong},
    schema::{self, schema},
};

/// Reads a text whose relative paths start at `root`. What its values name is not looked at.
pub(super) fn parse(text: &str, root: &Path) -> Parsed {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut parsed = Parsed { config: Config::default(), places: Vec::new(), problems: Vec::new() };
    if !errors.is_empty() {
        let problem = |error: toml::de::Error| Problem {
            key: None,
            line: error.span().map(|span| line_of(text, span.start)),
            wrong: Wrong::Syntax(Box::new(error)),
        };
        parsed.problems = errors.into_iter().map(problem).collect();
        return parsed;
    }
    parsed.places = places(text, table.get_ref(), "");
    Reader { text, schema: schema().to_value(), parsed: &mut parsed }.read(table);
    parsed.config.settle_paths(root);
    parsed
}

/// What could be read, and what could not.
pub(super) struct Parsed {
    /// With defaults where something is wrong.
    pub(super) config: Config,
    places: Vec<Place>,
    problems: Vec<Problem>,
}

impl Parsed {
    /// Whether the text is TOML, so that its values can be tried.
    pub(super) fn is_toml(&self) -> bool {
        !self.problems.iter().any(|problem| matches!(problem.wrong, Wrong::Syntax(_)))
    }

    /// Adds something that is wrong with a key.
    pub(super) fn note(&mut self, key: &str, wrong: Wrong) {
        let place = self.places.iter().find(|place| place.name == key);
        let line = place.map(|place| place.line);
        self.problems.push(Problem { key: Some(key.into()), line, wrong });
    }

    /// The configuration if nothing is wrong with it.
    pub(super) fn finish(mut self) -> Result<Config, Vec<Problem>> {
        if self.problems.is_empty() {
            return Ok(self.config);
        }
        self.problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        Err(self.problems)
    }
}

/// The table of a document, with the span of everything in it.
type Document<'t> = toml::Spanned<DeTable<'t>>;

struct Reader<'a> {
    text: &'a str,
    schema: Value,
    parsed: &'a mut Parsed,
}

/// Where a key and its value are.
struct Place {
    /// With the tables it is in.
    name: String,
    /// From 1.
    line: usize,
    key: Range<usize>,
    value: Range<usize>,
}

impl Reader<'_> {
    /// What is wrong is noted and left out, so that the rest is read as well.
    fn read(&mut self, mut table: Document<'_>) {
        for name in self.unknown(table.get_ref(), &self.schema, "") {
            remove(table.get_mut(), &name);
            let nearest = schema::nearest(&self.schema, &name);
            self.parsed.note(&name, Wrong::UnknownKey { key: name.clone(), nearest });
        }
        loop {
            match Config::deserialize(Deserializer::from(table.clone())) {
                Ok(config) => {
                    self.parsed.config = config;
                    return;
                }
                Err(error) => {
                    if !self.leave_out(table.get_mut(), error) {
                        return;
                    }
                }
            }
        }
    }

    /// Notes an error and takes what it is about out of the table; whether that was found.
    fn leave_out(&mut self, table: &mut DeTable<'_>, error: toml::de::Error) -> bool {
        let at = error.span().map(|span| span.start);
        let key = at.and_then(|at| self.key_at(at));
        let removed = key.as_ref().is_some_and(|key| remove(table, key));
        let line = at.map(|at| line_of(self.text, at));
        self.parsed.problems.push(Problem { key, line, wrong: Wrong::Value(Box::new(error)) });
        removed
    }

    /// The key that is wrong if something is wrong at `at`: the one that can be left out
    /// with what remains still being right.
    fn key_at(&self, at: usize) -> Option<String> {
        let holds = |place: &&Place| place.key.contains(&at) || place.value.contains(&at);
        let place = self.parsed.places.iter().filter(holds).max_by_key(|place| place.name.len())?;
        let keys = schema::keys(&self.schema, "");
        let whole = keys.into_iter().map(|key| key.name).find(|key| {
            place.name.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('.'))
        });
        Some(whole.unwrap_or_else(|| place.name.clone()))
    }

    /// The keys that are in no table of the schema.
    fn unknown(&self, table: &DeTable<'_>, schema: &Value, prefix: &str) -> Vec<String> {
        let Some(known) = schema::properties(schema) else { return Vec::new() };
        let mut unknown = Vec::new();
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            match (known.get(key.get_ref().as_ref()), value.get_ref()) {
                (None, _) => unknown.push(name),
                (Some(schema), DeValue::Table(inner)) => {
                    unknown.extend(self.unknown(inner, schema, &format!("{name}.")));
                }
                (Some(_), _) => {}
            }
        }
        unknown
    }
}

fn places(text: &str, table: &DeTable<'_>, prefix: &str) -> Vec<Place> {
    let mut found = Vec::new();
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        if let DeValue::Table(inner) = value.get_ref() {
            found.extend(places(text, inner, &format!("{name}.")));
        }
        let line = line_of(text, key.span().start);
        found.push(Place { name, line, key: key.span(), value: value.span() });
    }
    found
}

/// Leaves a key out; whether it was there.
fn remove(table: &mut DeTable<'_>, name: &str) -> bool {
    match name.split_once('.') {
        None => table.remove(name).is_some(),
        Some((first, rest)) => match table.get_mut(first).map(toml::Spanned::get_mut) {
            Some(DeValue::Table(inner)) => remove(inner, rest),
            _ => false,
        },
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}
