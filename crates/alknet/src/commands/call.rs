//! `alknet call`.

mod input;
mod layout;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use alknet_call::{CallError, CallOptions, Item, Kind, Peer, Subscription};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

pub(crate) use self::layout::plain;
use self::layout::{Layout, laid_out};
use super::{audit::reader_has_gone, dial::Reach};
use crate::{
    config::{InvalidSpan, Span},
    failure::Failure,
    home::Home,
    output, remote,
};

/// How often it is looked whether anybody still reads.
const TICK: Duration = Duration::from_millis(200);

/// Call an operation of a node
///
/// The input is JSON, or `-` for JSON on stdin, or words such as `follow=true`: a value that is
/// no JSON is text. The output is JSON, for a subscription one line for each item until it
/// ends or is interrupted, which aborts it.
///
/// Examples:
///   alknet call example.org --list
///   alknet call example.org exec/run --schema
///   alknet call example.org node/status
///   alknet call example.org audit/tail follow=true lines=5
///   alknet call example.org exec/run '{"command": ["uname", "-a"]}'
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// HOST[:PORT], a saved name, a node id, or a link to the node
    node: String,
    /// The operation, such as node/status
    #[arg(required_unless_present = "list")]
    operation: Option<String>,
    /// What it takes
    #[arg(value_name = "JSON|-|KEY=VALUE", conflicts_with = "schema")]
    input: Vec<String>,
    /// List the operations that this machine may use there
    #[arg(long, conflicts_with_all = ["operation", "input", "schema"])]
    list: bool,
    /// Show what the operation takes and gives
    #[arg(long)]
    schema: bool,
    /// How long to wait for the output, or for the end of a subscription: 30s, 5m
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    timeout: Option<Span>,
    /// Go on with a subscription behind this event, as --json prints it
    #[arg(long, value_name = "EVENT")]
    after: Option<String>,
    /// Print each output as one line, with its event, and an error as JSON as well
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

fn parse_timeout(text: &str) -> Result<Span, String> {
    match text.parse::<Span>() {
        Ok(span) if span.is_zero() => Err("nothing is done in no time".into()),
        parsed => parsed.map_err(|error: InvalidSpan| error.to_string()),
    }
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    let Some(operation) = args.operation.clone().filter(|_| !args.list) else {
        return list(&args, home).await;
    };
    if args.schema {
        let which = Which { name: &operation };
        let described = remote::call(home, &args.node, &args.reach, async |peer: Peer| {
            Ok(peer.call_raw("services/schema", &which, args.options()).await?)
        });
        return print(&described.await?, None, args.json).map_err(Failure::from);
    }
    let input = input::read(&args.input).await?;
    let called = remote::call(home, &args.node, &args.reach, async |peer: Peer| {
        call(&peer, &operation, &input, &args).await
    });
    called.await.inspect_err(|failure| {
        if let Some(error) = failure.cause::<CallError>().filter(|_| args.json) {
            // Whoever does not read it has the exit code.
            let _ = line(&Envelope::Error { error });
        }
    })
}

impl Args {
    fn options(&self) -> CallOptions {
        let mut options = CallOptions::default();
        options.timeout = self.timeout.map(Duration::from);
        options.after.clone_from(&self.after);
        options
    }
}

/// An operation by its name.
#[derive(Serialize)]
struct Which<'a> {
    name: &'a str,
}

#[derive(Debug, Serialize, Deserialize)]
struct Listed {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    description: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct List {
    operations: Vec<Listed>,
}

async fn list(args: &Args, home: &Home) -> Result<(), Failure> {
    let list = remote::call(home, &args.node, &args.reach, async |peer: Peer| {
        let listed = peer.call_raw("services/list", &Value::Null, args.options()).await?;
        Ok(serde_json::from_str::<List>(listed.get())?)
    });
    let list = list.await?;
    if args.json {
        let text = serde_json::value::to_raw_value(&list.operations)?;
        output::line(laid_out(&text, Layout::Indented))?;
    } else {
        let cells = |it: &Listed| [&it.name, &it.kind, &it.description].map(|text| plain(text));
        let rows: Vec<_> = list.operations.iter().map(cells).collect();
        output::table(["NAME", "TYPE", "DESCRIPTION"], &rows)?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Described {
    #[serde(rename = "type")]
    kind: Kind,
}

async fn call(peer: &Peer, name: &str, input: &RawValue, args: &Args) -> Result<(), Failure> {
    // Only the node knows whether more than one output will come.
    let described: Described = peer.call("services/schema", &Which { name }).await?;
    if described.kind != Kind::Subscription {
        let output = peer.call_raw(name, input, args.options()).await?;
        return Ok(print(&output, None, args.json)?);
    }
    let mut items: Subscription<Value> = peer.subscribe(name, input, args.options()).await?;
    let mut ticks = tokio::time::interval(TICK);
    loop {
        let item = tokio::select! {
            item = items.next_raw() => item,
            _ = ticks.tick() => {
                if reader_has_gone() {
                    return Ok(());
                }
                continue;
            }
        };
        match item {
            Some(item) => {
                let Item { output, event, .. } = item?;
                let envelope = Envelope::Output { output: &output, event: event.as_deref() };
                let printed =
                    if args.json { line(&envelope) } else { lay_out(&output, Layout::Line) };
                match printed {
                    // Whoever read has had enough.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    printed => printed?,
                }
            }
            None => return Ok(()),
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
#[serde(untagged)]
enum Envelope<'a> {
    Output {
        output: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        event: Option<&'a str>,
    },
    Error {
        error: &'a CallError,
    },
}

fn print(output: &RawValue, event: Option<&str>, json: bool) -> io::Result<()> {
    if json { line(&Envelope::Output { output, event }) } else { lay_out(output, Layout::Indented) }
}

fn line(envelope: &Envelope<'_>) -> io::Result<()> {
    lay_out(&serde_json::value::to_raw_value(envelope)?, Layout::Line)
}

/// A value of a node, a line for each member.
pub(super) fn print_indented(json: &RawValue) -> io::Result<()> {
    lay_out(json, Layout::Indented)
}

fn lay_out(json: &RawValue, layout: Layout) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", laid_out(json, layout))?;
    out.flush()
}
