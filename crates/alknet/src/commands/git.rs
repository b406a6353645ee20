//! `alknet git …`: the repositories of this node, or of another.

mod install_helper;
mod local;
mod remote;
mod show;

use std::path::PathBuf;

use alknet_git::CredentialsFile;

use self::remote::All;
use super::{dial::Reach, prompt};
use crate::{
    config::{InvalidSpan, Size, Span},
    failure::Failure,
    git::admin::{Configure, Create, MirrorOf, Named, Rename},
    home::Home,
    output,
};

/// A node had no time to say more.
const MORE: &str = "the node has more repositories than it has named";

/// Host git repositories
///
/// Without --node the repositories are those of the state folder, whether a node runs on it
/// or not; a change holds at once. With --node they are another node's, as far as this machine
/// may see and change them there.
///
/// Examples:
///   alknet git create team/notes --description "What we know"
///   alknet git list
///   alknet git configure team/notes --protect main
///   alknet git mirror copies/tool https://example.org/tool.git --every 6h
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Create(Make),
    List(List),
    Show(Show),
    Rename(Move),
    Delete(Delete),
    Gc(Gc),
    Configure(Set),
    Mirror(Mirror),
    InstallHelper(install_helper::Args),
}

/// Whose repositories.
#[derive(Debug, Clone, clap::Args)]
struct Whose {
    /// Those of another node: HOST[:PORT], a saved name, a node id, or a link
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    #[command(flatten)]
    reach: Reach,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Make an empty repository
///
/// A name has words of lower-case letters, digits, '.', '_' and '-', with slashes between
/// them.
///
/// Example:
///   alknet git create team/notes --description "What we know" --default-branch trunk
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
struct Make {
    /// What to call it
    name: String,
    /// What it is, in a line
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Let everybody read it who reaches the node, without any grant
    #[arg(long)]
    public: bool,
    /// The branch that clones begin with
    #[arg(long, value_name = "BRANCH")]
    default_branch: Option<String>,
    #[command(flatten)]
    whose: Whose,
}

/// List the repositories
///
/// Example:
///   alknet git list
///   alknet git list --node example.org --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
struct List {
    #[command(flatten)]
    whose: Whose,
}

/// Show a repository with its settings
///
/// Example:
///   alknet git show team/notes
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
struct Show {
    /// Its name
    name: String,
    #[command(flatten)]
    whose: Whose,
}

/// Give a repository another name
///
/// Whoever fetches from it at the moment goes on; a push may have to be repeated.
///
/// Example:
///   alknet git rename notes team/notes
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
struct Move {
    /// What it is called
    name: String,
    /// What it is to be called
    to: String,
    #[command(flatten)]
    whose: Whose,
}

/// Remove a repository, for good
///
/// Example:
///   alknet git delete team/old --yes
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
struct Delete {
    /// Its name
    name: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    whose: Whose,
}

/// Collect the garbage of repositories: one pack, with what makes clones fast
///
/// A node does what is needed by itself after pushes, and all of it a week after the last time.
/// What nothing has led to for two weeks is removed then.
///
/// Example:
///   alknet git gc team/notes
///   alknet git gc --all
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
struct Gc {
    /// Its name
    #[arg(required_unless_present = "all")]
    name: Option<String>,
    /// All of them
    #[arg(long, conflicts_with = "name")]
    all: bool,
    #[command(flatten)]
    whose: Whose,
}

/// Change settings of a repository
///
/// A protected ref is neither deleted nor moved to anything but a descendant of what it
/// names. It is a branch, a ref, or the beginning of some with a * at its end.
///
/// Example:
///   alknet git configure team/notes --protect main --protect 'release/*'
///   alknet git configure team/notes --public --quota 2GiB
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
#[group(id = "settings", multiple = true, required = true, args = [
    "description", "public", "private", "default_branch", "protect", "unprotect", "quota",
    "no_quota", "lfs", "no_lfs",
])]
struct Set {
    /// Its name
    name: String,
    /// What it is, in a line
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Let everybody read it who reaches the node, without any grant
    #[arg(long)]
    public: bool,
    /// Let nobody read it without a grant
    #[arg(long, conflicts_with = "public")]
    private: bool,
    /// The branch that clones begin with
    #[arg(long, value_name = "BRANCH")]
    default_branch: Option<String>,
    /// Protect refs
    #[arg(long, value_name = "REF")]
    protect: Vec<String>,
    /// Protect refs no more
    #[arg(long, value_name = "REF")]
    unprotect: Vec<String>,
    /// How large it may grow: 500MiB, 2GiB
    #[arg(long, value_name = "SIZE")]
    quota: Option<Size>,
    /// Let it grow as the node lets all
    #[arg(long, conflicts_with = "quota")]
    no_quota: bool,
    /// Store large files beside it (Git LFS)
    #[arg(long)]
    lfs: bool,
    /// Store no large files beside it
    #[arg(long, conflicts_with = "lfs")]
    no_lfs: bool,
    #[command(flatten)]
    whose: Whose,
}

/// Keep a copy of a repository elsewhere
///
/// The running node fetches all branches and tags again and again; nobody pushes to a mirror.
/// Nothing of a private network is fetched unless the configuration names it
/// (git.mirror_networks).
///
/// Examples:
///   alknet git mirror copies/tool https://example.org/tool.git --every 6h
///   alknet git mirror copies/notes alknet://node.example.org/team/notes
///   alknet git mirror copies/tool --now
///   alknet git mirror copies/tool --stop
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
#[group(id = "what", required = true, args = ["url", "now", "stop"])]
struct Mirror {
    /// Its name; it is made if it is not there
    name: String,
    /// Where from: https://HOST/PATH, or http://, git://, ssh://, or alknet://NODE/NAME
    url: Option<String>,
    /// How often to look for news: 30m, 6h, 1d [default: 1h]
    #[arg(long, value_name = "TIME", requires = "url", value_parser = parse_every)]
    every: Option<Span>,
    /// A file with what the other side wants to see: for https what `git credential-store`
    /// keeps, for ssh a private key
    #[arg(long, value_name = "FILE", requires = "url", conflicts_with = "node")]
    credentials: Option<PathBuf>,
    /// Look for news now
    #[arg(long)]
    now: bool,
    /// Let it be a mirror no more, with what it has
    #[arg(long)]
    stop: bool,
    #[command(flatten)]
    whose: Whose,
}

fn parse_every(text: &str) -> Result<Span, String> {
    match text.parse::<Span>() {
        Ok(span) if span.is_zero() => Err("a mirror does not look all the time".into()),
        parsed => parsed.map_err(|error: InvalidSpan| error.to_string()),
    }
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    match args.verb {
        Verb::Create(args) => create(args, home).await,
        Verb::List(args) => list(&args.whose, home).await,
        Verb::Show(args) => one(&args.whose, home, Change::Show(Named { name: args.name })).await,
        Verb::Rename(args) => {
            let wanted = Rename { name: args.name, to: args.to };
            one(&args.whose, home, Change::Rename(wanted)).await
        }
        Verb::Delete(args) => delete(args, home).await,
        Verb::Gc(args) => gc(&args, home).await,
        Verb::Configure(args) => configure(args, home).await,
        Verb::Mirror(args) => mirror(args, home).await,
        Verb::InstallHelper(args) => install_helper::run(&args),
    }
}

/// What is asked of one repository that is there afterwards.
#[derive(Debug, Clone)]
enum Change {
    Create(Create),
    Show(Named),
    Rename(Rename),
    Configure(Configure),
    Mirror(MirrorOf, Option<CredentialsFile>),
}

/// Does it, and shows the repository.
async fn one(whose: &Whose, home: &Home, change: Change) -> Result<(), Failure> {
    let shown = match &whose.node {
        None => local::change(home, change).await?,
        Some(node) => remote::change(home, node, &whose.reach, &change).await?,
    };
    if whose.json { Ok(output::json(&shown)?) } else { Ok(show::one(&shown)?) }
}

async fn create(args: Make, home: &Home) -> Result<(), Failure> {
    let Make { name, description, public, default_branch, whose } = args;
    one(&whose, home, Change::Create(Create { name, description, public, default_branch })).await
}

async fn list(whose: &Whose, home: &Home) -> Result<(), Failure> {
    match &whose.node {
        None => {
            let all = local::list(home).await?;
            if whose.json { Ok(output::json(&all)?) } else { Ok(show::many(&all)?) }
        }
        Some(node) => {
            let All { repositories: all, is_whole } =
                remote::list(home, node, &whose.reach).await?;
            let shown = if whose.json { output::json(&all) } else { show::theirs(&all) };
            shown?;
            if !is_whole {
                output::note(MORE)?;
            }
            Ok(())
        }
    }
}

async fn delete(args: Delete, home: &Home) -> Result<(), Failure> {
    let Delete { name, yes, whose } = args;
    if !yes && !confirmed(&name)? {
        return Err(Failure::new("nothing was removed"));
    }
    let wanted = Named { name: name.clone() };
    match &whose.node {
        None => local::delete(home, wanted).await?,
        Some(node) => remote::delete(home, node, &whose.reach, &wanted).await?,
    }
    match whose.json {
        true => Ok(output::json(&wanted_json(&name))?),
        false => Ok(output::note(format!("removed {name}"))?),
    }
}

fn wanted_json(name: &str) -> serde_json::Value {
    serde_json::json!({ "name": name })
}

/// Asks whoever is at the terminal to repeat the name.
fn confirmed(name: &str) -> Result<bool, Failure> {
    let Some(terminal) = prompt::terminal()? else {
        return Err(Failure::usage("there is no terminal to ask at")
            .hint("--yes removes it without a question"));
    };
    prompt::tell(&format!("This removes {name} and everything in it. Its name again:"))?;
    Ok(*prompt::first_line(terminal)? == name)
}

async fn gc(args: &Gc, home: &Home) -> Result<(), Failure> {
    let (names, is_whole) = match (&args.name, &args.whose.node) {
        (Some(name), _) => (vec![name.clone()], true),
        (None, None) => (local::names(home).await?, true),
        (None, Some(node)) => {
            let All { repositories, is_whole } =
                remote::list(home, node, &args.whose.reach).await?;
            let administered = repositories.into_iter().filter(|one| one.rights.admin);
            (administered.map(|one| one.name).collect(), is_whole)
        }
    };
    let collected = match &args.whose.node {
        None => local::collect(home, &names).await?,
        Some(node) => remote::collect(home, node, &args.whose.reach, &names).await?,
    };
    match args.whose.json {
        true => output::json(&collected)?,
        false => show::collected(&collected)?,
    }
    if is_whole { Ok(()) } else { Err(Failure::new(MORE)) }
}

async fn configure(args: Set, home: &Home) -> Result<(), Failure> {
    let choice = |yes: bool, no: bool| (yes || no).then_some(yes);
    let quota = args.quota.map(Size::bytes).or_else(|| args.no_quota.then_some(0));
    let wanted = Configure {
        public: choice(args.public, args.private),
        lfs: choice(args.lfs, args.no_lfs),
        quota,
        name: args.name,
        description: args.description,
        default_branch: args.default_branch,
        protect: args.protect,
        unprotect: args.unprotect,
    };
    one(&args.whose, home, Change::Configure(wanted)).await
}

async fn mirror(args: Mirror, home: &Home) -> Result<(), Failure> {
    let credentials = match &args.credentials {
        None => None,
        Some(path) => {
            let path = std::path::absolute(path)?;
            let file = CredentialsFile::try_from(path);
            Some(file.map_err(|error| Failure::usage(error.to_string()))?)
        }
    };
    let Mirror { name, url, every, stop, .. } = args;
    let wanted = MirrorOf { name, url, every, stop };
    one(&args.whose, home, Change::Mirror(wanted, credentials)).await
}
