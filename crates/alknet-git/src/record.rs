//! Fetches, pushes and refusals, in the audit log and for whoever listens.

use alknet_core::{Audit, AuditChange, AuditEvent, Refusals};

use crate::{
    engine::Traffic,
    events::{Event, EventKind, Events},
    name::RepositoryName,
    push::{Push, RefChange, Refused},
    request::Service,
    server::Caller,
};

/// The most changes of refs that an entry names.
const CHANGES: usize = 100;
/// The longest text of an entry, in characters.
const LONGEST: usize = 256;

/// Where what happens is recorded.
#[derive(Debug)]
pub(crate) struct Record {
    audit: Audit,
    refusals: Refusals,
    events: Events,
}

impl Record {
    pub(crate) fn new(audit: Audit, events: Events) -> Self {
        Self { refusals: Refusals::new(audit.clone()), audit, events }
    }

    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// Somebody was not let at a repository.
    pub(crate) fn refused(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        service: Service,
        why: &str,
    ) {
        let event = about(AuditEvent::REFUSED, caller, repository);
        self.refusals.record(event.because(format!("{}: {why}", service.name())));
    }

    /// Somebody has fetched.
    pub(crate) fn fetched(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        service: Service,
        traffic: &Traffic,
        failure: Option<String>,
    ) {
        self.audit.record(AuditEvent {
            service: Some(service.name()),
            bytes_read: Some(traffic.sent()),
            reason: failure.map(|text| short(&text)),
            ..about("git-fetch", caller, repository)
        });
    }

    /// Somebody has fetched a bundle of a repository, or a part of it.
    pub(crate) fn bundle(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        file: String,
        sent: u64,
    ) {
        let (file, bytes_read) = (Some(file), Some(sent));
        let about = about("git-fetch", caller, repository);
        self.audit.record(AuditEvent { file, bytes_read, ..about });
    }

    /// Somebody has pushed, or tried to.
    pub(crate) fn pushed(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        push: &Push,
        changed: &[RefChange],
        refused: &Refused,
    ) {
        let event = AuditEvent {
            changes: push.changes.iter().take(CHANGES).map(|it| told(it, refused)).collect(),
            more_changes: push.changes.len().checked_sub(CHANGES).filter(|more| *more > 0),
            signature: push.certificate.as_ref().map(|it| short(&it.to_string())),
            ..about("git-push", caller, repository)
        };
        if changed.is_empty() {
            let event = AuditEvent { event: AuditEvent::REFUSED, ..event };
            self.refusals.record(event.because("git-push: no ref was changed"));
            return;
        }
        self.audit.record(event);
        let event = Event::new(EventKind::Push, repository, caller.identity.as_deref());
        self.events.send(event.with_changes(changed));
    }

    /// Somebody has got a large file, or sent one.
    pub(crate) fn large_file(
        &self,
        event: &'static str,
        caller: &Caller,
        repository: &RepositoryName,
        file: String,
        bytes: u64,
    ) {
        let (file, bytes) = (Some(file), Some(bytes));
        self.audit.record(AuditEvent { file, bytes, ..about(event, caller, repository) });
    }

    /// A push has made a repository.
    pub(crate) fn created(&self, caller: &Caller, repository: &RepositoryName) {
        self.audit.record(about("git-create", caller, repository));
        let by = caller.identity.as_deref();
        self.events.send(Event::new(EventKind::Created, repository, by));
    }
}

fn about(event: &'static str, caller: &Caller, repository: &RepositoryName) -> AuditEvent {
    let about = AuditEvent::about(event, &caller.auth);
    AuditEvent {
        session: caller.auth.session.id(),
        identity: caller.identity.as_ref().map(|identity| identity.id.clone()),
        repository: Some(repository.to_string()),
        ..about
    }
}

fn told(change: &RefChange, refused: &Refused) -> AuditChange {
    AuditChange {
        name: short(&change.reference),
        old: change.old.to_string(),
        new: change.new.to_string(),
        refused: refused.get(&change.reference).map(|why| short(why)),
    }
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}
