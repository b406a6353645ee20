//! Forwarding, put together: the policy of a node, and the client's way to one.

use alknet_core::{Alpn, BoxFuture, Closed, Code, Connection};
use alknet_forward::{Client, Dial, DialError, OpenError, Request, State};
use alknet_host::{Accounts, network::Policy};
use tokio::sync::watch;

use crate::{
    commands::{dial::Reach, plain},
    config::Forward,
    connect::{Route, Via},
    failure::Failure,
    home::Home,
    output,
};

/// What callers may have of the node's network. Unix sockets are used as the node's own
/// account, so they are for those whose sessions run as that one too.
pub(crate) fn policy(config: &Forward, accounts: &Accounts) -> Policy {
    let accounts = accounts.clone();
    Policy::unix_for(config.policy(), move |caller| {
        !Accounts::is_privileged() || accounts.names(caller).first() == Some(&accounts.node().name)
    })
}

/// The way to a node that has been reached once.
struct Redial {
    route: Route,
    via: Via,
}

impl Dial for Redial {
    fn dial(&self) -> BoxFuture<'_, Result<Connection, DialError>> {
        Box::pin(async move {
            match self.route.connect(self.via).await {
                Ok(connected) => Ok(connected.connection),
                Err(error) if error.is_final() => Err(DialError::is_final(error)),
                Err(error) => Err(DialError::new(error)),
            }
        })
    }
}

/// A client of a node's forwarding that stays connected; the node has said that this
/// machine may forward at all.
pub(crate) async fn client(home: &Home, node: &str, reach: &Reach) -> Result<Client, Failure> {
    let route = Route::find(home, node, reach.pin, Alpn::service("forward")?).await?;
    let connected = route.connect(reach.via).await?;
    let redial = Redial { route: route.to(connected.node), via: reach.via };
    let asked = alknet_forward::open(&connected.connection, &Request::Ping {}).await;
    asked.map_err(not_admitted)?;
    Ok(Client::new(redial, connected.connection))
}

/// Why the node's first answer did not come, with what can be done about it. Not every
/// transport says why a connection ends.
fn not_admitted(error: OpenError) -> Failure {
    let failure = match error {
        OpenError::TurnedAway(Closed { code: Code::REFUSED, .. }) => {
            Failure::new("the node refused the connection")
        }
        OpenError::Lost(_) => error.into(),
        error => return failed(error),
    };
    failure.hint(
        "the node has to know this machine: add what `alknet id` prints here to a peer there, \
         with the scope forward",
    )
}

/// With what can be done about it.
pub(crate) fn failed(error: OpenError) -> Failure {
    let hint = match &error {
        OpenError::TurnedAway(_) | OpenError::Lost(_) => Some(
            "on the node, alknet peer explain NAME forward:connect:HOST:PORT says what this \
             machine may do there",
        ),
        OpenError::Refused(_) => Some(
            "the node's alknet.toml needs a rule under [[forward.allow]], and this machine a \
             grant",
        ),
        _ => None,
    };
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Keeps the connection up, with a line on stderr when it is lost and when it is back.
/// Returns when no further try mends it.
pub(crate) async fn keep(client: &Client, node: &str) -> Failure {
    let error = tokio::select! {
        error = client.keep() => error,
        never = announce(client.state(), node) => match never {},
    };
    failed(error).context(format!("forwarding to {node} has ended"))
}

async fn announce(mut state: watch::Receiver<State>, node: &str) -> std::convert::Infallible {
    loop {
        if state.changed().await.is_err() {
            // Whoever holds the client ends this.
            std::future::pending::<()>().await;
        }
        let line = match &*state.borrow_and_update() {
            State::Up => format!("connected to {node} again"),
            State::Down(why) => format!("the connection to {node} is lost: {}", plain(why)),
        };
        // Whoever has no stderr does not miss it.
        let _ = output::note(line);
    }
}
