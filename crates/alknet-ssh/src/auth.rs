//! Who may log in, and for how long.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use alknet_core::{
    AuditEvent, AuthContext, AuthMethod, Credential, Identity, KeyFingerprint, Login, ProviderError,
};
use alknet_host::{Account, AccountRefusal, RecordError};
use russh::keys::{Algorithm, Certificate, ssh_key::public::KeyData};
use tokio::sync::SetOnce;

use crate::{
    Asker,
    certificate::{self, CertificateError, Description, cut},
    forward::ForwardRefusal,
    handler::Settings,
    revoked::{RevokedKeysError, Subject, Version},
    user_key::{UserKeyError, accepted, best_algorithm},
};

/// A grant that touches one of these, or what a [`ChannelService`](crate::ChannelService) is
/// called, is enough for a login.
const SERVICES: [&str; 2] = ["ssh", "forward"];
/// What a session that ended with its credential is recorded with.
const OVER: &str = "the credential was revoked or has expired";

/// Why a login, or something asked for after it, is refused. For the audit log: the client
/// is told only that it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Account(#[from] AccountRefusal),
    #[error(transparent)]
    Kind(#[from] UserKeyError),
    #[error("unknown key")]
    UnknownKey,
    #[error("outside the identity's scopes")]
    OutOfScope,
    #[error("outside the identity's scopes: {0}")]
    NotAllowed(String),
    #[error("the login name {0:?} is for a service alone")]
    NoAccount(String),
    #[error("no subsystem {0:?} for this identity")]
    Subsystem(String),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("the certificate is without {0}")]
    NotPermitted(&'static str),
    #[error(transparent)]
    Forward(#[from] ForwardRefusal),
    #[error(transparent)]
    Unrecorded(#[from] RecordError),
    #[error("revoked")]
    RevokedKey,
    #[error("revoked (serial {0})")]
    RevokedSerial(u64),
    #[error("{OVER}")]
    Over,
    #[error("no {0} logins here")]
    Method(&'static str),
    #[error("no login within {0} seconds")]
    TooLate(u64),
    #[error(transparent)]
    Limit(#[from] alknet_core::Refusal),
    #[error(transparent)]
    Store(#[from] ProviderError),
    #[error(transparent)]
    Revocations(#[from] RevokedKeysError),
}

/// What a client wants to log in with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Presented<'a> {
    key: &'a KeyData,
    certificate: Option<&'a Certificate>,
}

impl<'a> Presented<'a> {
    pub(crate) fn key(key: &'a KeyData) -> Self {
        Self { key, certificate: None }
    }

    pub(crate) fn certificate(certificate: &'a Certificate) -> Self {
        Self { key: certificate.public_key(), certificate: Some(certificate) }
    }

    fn subject(&self) -> Result<Subject, RevokedKeysError> {
        match self.certificate {
            Some(certificate) => Subject::certificate(certificate),
            None => Subject::key(self.key),
        }
    }

    fn method(&self) -> AuthMethod {
        match self.certificate {
            Some(_) => AuthMethod::Certificate,
            None => AuthMethod::PublicKey,
        }
    }

    fn revoked(&self) -> Refusal {
        match self.certificate {
            Some(certificate) => Refusal::RevokedSerial(certificate.serial()),
            None => Refusal::RevokedKey,
        }
    }
}

/// The authentication of one SSH transport: what its session loop asks, and what whoever
/// runs the transport waits for.
pub(crate) struct Authentication {
    settings: Arc<Settings>,
    auth: AuthContext,
    user: SetOnce<User>,
    /// Why there is no login yet, once somebody has tried.
    tried: Mutex<Option<String>>,
}

/// Who a channel is for, as they are when it starts.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub(crate) identity: Arc<Identity>,
    pub(crate) login_name: String,
    /// `None` where they have logged in without one.
    pub(crate) account: Option<Account>,
}

impl Holder {
    pub(crate) fn asker(&self) -> Asker<'_> {
        let Self { identity, login_name, account } = self;
        Asker { identity, login_name, account: account.as_ref() }
    }
}

/// Somebody who has logged in.
struct User {
    login: Login,
    /// The login name: which account it is for.
    name: String,
    /// Whether there was such an account for them: what they log in for may need none.
    has_account: bool,
    since: Instant,
    key: KeyData,
    certificate: Option<Certificate>,
    subject: Subject,
    /// The state of the list of revoked keys that did not have `subject`.
    version: Version,
}

impl User {
    fn presented(&self) -> Presented<'_> {
        Presented { key: &self.key, certificate: self.certificate.as_ref() }
    }
}

impl Authentication {
    pub(crate) fn new(settings: Arc<Settings>, auth: AuthContext) -> Self {
        Self { settings, auth, user: SetOnce::new(), tried: Mutex::default() }
    }

    /// Whether a login with this could succeed. The client has not proven yet that the key
    /// is its own, and is not told whether the key is revoked.
    pub(crate) async fn offered(
        &self,
        user: &str,
        presented: Presented<'_>,
        algorithm: &Algorithm,
    ) -> bool {
        self.tried().get_or_insert_with(|| "no login was finished".into());
        let verdict = self.check(account_name(user), presented, algorithm).await;
        verdict.map_err(|refusal| self.refused(Some(presented), &refusal)).is_ok()
    }

    /// Logs in with something that the client has proven to be its own.
    pub(crate) async fn proven(&self, user: &str, presented: Presented<'_>) -> bool {
        let verdict = self.log_in(account_name(user), presented).await;
        verdict.map_err(|refusal| self.refused(Some(presented), &refusal)).is_ok()
    }

    /// Puts a certificate that does not count, whoever trusts its authority, into the log.
    pub(crate) fn invalid(&self, certificate: &Certificate) {
        let verdict = certificate::check(certificate, self.peer(), SystemTime::now());
        // There is no second opinion on what russh refuses.
        let refusal = verdict.err().unwrap_or(CertificateError::Signature);
        self.refused(Some(Presented::certificate(certificate)), &refusal.into());
    }

    async fn log_in(&self, name: &str, presented: Presented<'_>) -> Result<(), Refusal> {
        let algorithm = best_algorithm(presented.key);
        let (identity, account) = self.check(name, presented, &algorithm).await?;
        let subject = presented.subject()?;
        let (revoked, version) = self.settings.revoked_keys.revoked(&subject).await?;
        if revoked {
            return Err(presented.revoked());
        }
        let login = self.auth.session.login(Arc::new(identity))?;
        // What was taken away before the login was registered ended no login.
        self.current(&login).await?;
        let event = self.event(AuditEvent::AUTHENTICATED, Some(presented));
        let user = User {
            login,
            name: name.into(),
            has_account: account.is_some(),
            since: Instant::now(),
            key: presented.key.clone(),
            certificate: presented.certificate.cloned(),
            subject,
            version,
        };
        let named = user.has_account || self.is_of_service(name);
        let granted = presented.certificate.map(|it| granted(it, user.login.identity()));
        let without = (!named).then(|| format!("login name {:?}, without an account", cut(name)));
        let details: Vec<String> = granted.into_iter().chain(without).collect();
        self.settings.audit.record(AuditEvent {
            identity: Some(user.login.identity().id.clone()),
            account: named.then(|| name.into()),
            reason: (!details.is_empty()).then(|| details.join("; ")),
            ..event
        });
        // Nobody logs in twice: russh asks no more once it was told of a success.
        let _ = self.user.set(user);
        Ok(())
    }

    async fn check(
        &self,
        name: &str,
        presented: Presented<'_>,
        algorithm: &Algorithm,
    ) -> Result<(Identity, Option<Account>), Refusal> {
        if !self.is_of_service(name) {
            self.settings.accounts.serve(name)?;
        }
        accepted(presented.key, algorithm)?;
        let identity = match presented.certificate {
            Some(certificate) => self.certified(certificate).await?,
            None => {
                let key = certificate::fingerprint(presented.key).ok_or(Refusal::UnknownKey)?;
                self.settings.identities.by_key(&key).await?.ok_or(Refusal::UnknownKey)?
            }
        };
        if !self.admits(&identity) {
            return Err(Refusal::OutOfScope);
        }
        let account = self.account(&identity, name).await?;
        Ok((identity, account))
    }

    /// The account that somebody gets under a login name; `None` where it is a service's name
    /// and no account of theirs, and where they have no account at all and may have something
    /// that needs none.
    async fn account(&self, identity: &Identity, name: &str) -> Result<Option<Account>, Refusal> {
        match self.settings.accounts.of(identity, Some(name)).await {
            Ok(account) => Ok(Some(account)),
            Err(_) if self.is_of_service(name) => Ok(None),
            Err(AccountRefusal::NotMapped) if self.needs_no_account(identity) => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn needs_no_account(&self, identity: &Identity) -> bool {
        self.settings.services.iter().any(|service| service.needs_no_account(identity))
    }

    /// Whether a service has this login name.
    pub(crate) fn is_of_service(&self, name: &str) -> bool {
        self.settings.services.iter().any(|service| service.login_name() == Some(name))
    }

    /// Whether there is anything that an identity may do here.
    fn admits(&self, identity: &Identity) -> bool {
        let more = self.settings.services.iter().map(|service| service.name());
        SERVICES.into_iter().chain(more).any(|service| identity.scopes.admit(service))
    }

    /// Who a certificate stands for.
    async fn certified(&self, certificate: &Certificate) -> Result<Identity, Refusal> {
        certificate::check(certificate, self.peer(), SystemTime::now())?;
        let authority =
            certificate::authority(certificate).ok_or(CertificateError::UnknownAuthority)?;
        let principals = certificate.valid_principals();
        let identities = &self.settings.identities;
        // Anybody can make an authority and let it name hundreds of principals.
        if !identities.knows_authority(&authority).await? {
            return Err(CertificateError::UnknownAuthority.into());
        }
        let identity = identities.by_authority(&authority, principals).await?;
        let mut identity = identity.ok_or(CertificateError::NoTrustedPrincipal)?;
        let ends = [identity.valid_until, certificate::valid_until(certificate)];
        identity.valid_until = ends.into_iter().flatten().min();
        Ok(identity)
    }

    /// Waits until somebody has logged in. Cancel safe.
    pub(crate) async fn done(&self) {
        self.user.wait().await;
    }

    /// Waits until the login does not hold any more; that is in the audit log then. Cancel
    /// safe.
    pub(crate) async fn over(&self) {
        let user = self.user.wait().await;
        let refusal = tokio::select! {
            () = user.login.revoked() => Refusal::Over,
            () = self.settings.revoked_keys.until_revoked(&user.subject, user.version.clone()) => {
                user.presented().revoked()
            }
        };
        let event = self.event(AuditEvent::SESSION_END, Some(user.presented()));
        self.settings.audit.record(AuditEvent {
            duration_ms: u64::try_from(user.since.elapsed().as_millis()).ok(),
            ..event.because(refusal)
        });
    }

    /// Whether the login still holds: for a new channel. Keys and scopes can be taken away
    /// while a session lasts.
    pub(crate) async fn holds(&self) -> bool {
        let Some(user) = self.user.get() else { return false };
        let verdict = self.current(&user.login).await;
        verdict.map_err(|refusal| self.refused(Some(user.presented()), &refusal)).is_ok()
    }

    /// Who the user is now. A refusal is in the audit log.
    pub(crate) async fn caller(&self) -> Option<Arc<Identity>> {
        let user = self.user.get()?;
        let verdict = self.current(&user.login).await;
        verdict.map(Arc::new).map_err(|refusal| self.denied(&refusal)).ok()
    }

    /// Who the user is now, with the account of the login. A refusal is in the audit log.
    pub(crate) async fn holder(&self) -> Option<Holder> {
        let identity = self.caller().await?;
        let user = self.user.get()?;
        let login_name = user.name.clone();
        // A login without an account stays one, whatever is mapped to them by now.
        if !user.has_account {
            return Some(Holder { identity, login_name, account: None });
        }
        let verdict = self.account(&identity, &login_name).await;
        let account = verdict.map_err(|refusal| self.denied(&refusal)).ok()?;
        Some(Holder { identity, login_name, account })
    }

    /// Refuses what takes an account to whoever has logged in without one.
    pub(crate) fn denied_without_account(&self, login_name: &str) {
        let refusal = match self.is_of_service(login_name) {
            true => Refusal::NoAccount(cut(login_name)),
            false => AccountRefusal::NotMapped.into(),
        };
        self.denied(&refusal);
    }

    /// Whether the user may be asked about forwarding at all: not one who has logged in
    /// without an account for what needs none.
    pub(crate) fn may_forward(&self) -> bool {
        let Some(user) = self.user.get() else { return false };
        let may = user.has_account || self.is_of_service(&user.name);
        if !may {
            self.denied_without_account(&user.name);
        }
        may
    }

    /// Puts what is refused to whoever has logged in into the audit log.
    pub(crate) fn denied(&self, refusal: &Refusal) {
        self.refused(self.user.get().map(User::presented), refusal);
    }

    /// Whether the user has logged in to an account, on which a program may have a terminal.
    pub(crate) fn has_account(&self) -> bool {
        self.user.get().is_some_and(|user| user.has_account)
    }

    /// Whether the certificate that the user has logged in with, if it was one, has an
    /// extension.
    pub(crate) fn permits(&self, extension: &'static str) -> bool {
        let Some(user) = self.user.get() else { return false };
        let permitted = |it: &Certificate| certificate::permits(it, extension);
        let permitted = user.certificate.as_ref().is_none_or(permitted);
        if !permitted {
            self.denied(&Refusal::NotPermitted(extension));
        }
        permitted
    }

    /// The one command that the login is good for, if it is for one alone.
    pub(crate) fn forced_command(&self) -> Option<&str> {
        self.user.get()?.certificate.as_ref().and_then(certificate::forced_command)
    }

    /// Who the user is now.
    async fn current(&self, login: &Login) -> Result<Identity, Refusal> {
        let expired = |end: SystemTime| end <= SystemTime::now();
        if login.is_revoked() || login.identity().valid_until.is_some_and(expired) {
            return Err(Refusal::Over);
        }
        let credential = &login.identity().credential;
        let now = self.settings.identities.by_credential(credential).await?;
        let now =
            now.filter(|now| now.id == login.identity().id).ok_or_else(|| match credential {
                Credential::Authority { .. } => CertificateError::NoTrustedPrincipal.into(),
                _ => Refusal::UnknownKey,
            })?;
        if self.admits(&now) { Ok(now) } else { Err(Refusal::OutOfScope) }
    }

    /// Puts a refusal into the audit log.
    pub(crate) fn refused(&self, presented: Option<Presented<'_>>, refusal: &Refusal) {
        let mut reason = refusal.to_string();
        let cause = match refusal {
            Refusal::Store(error) => std::error::Error::source(error),
            Refusal::Revocations(error) => std::error::Error::source(error),
            _ => None,
        };
        reason.extend(cause.map(|cause| format!(": {cause}")));
        *self.tried() = Some(reason.clone());
        if let Some(certificate) = presented.and_then(|it| it.certificate) {
            reason = format!("{reason}; {}", Description(certificate));
        }
        let event = self.event(AuditEvent::REFUSED, presented).because(reason);
        if self.user.get().is_some() {
            // Logins are tried so many times and no more; what comes after has no such end.
            self.settings.refusals.record(event);
        } else {
            self.settings.audit.record(event);
        }
    }

    /// Reports a transport that ends to the node: if somebody has tried to log in and did
    /// not, that counts as one failure, however many keys they offered.
    pub(crate) fn ended(&self) {
        if let Some(user) = self.user.get() {
            let event = self.event(AuditEvent::REFUSED, Some(user.presented()));
            self.settings.refusals.settle(event);
        } else if let Some(reason) = self.tried().take() {
            self.auth.session.failed(&self.auth, &reason);
        }
    }

    fn tried(&self) -> MutexGuard<'_, Option<String>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peer(&self) -> Option<IpAddr> {
        self.auth.remote_addr.map(|peer| peer.ip())
    }

    fn event(&self, event: &'static str, presented: Option<Presented<'_>>) -> AuditEvent {
        let mut event = AuditEvent::about(event, &self.auth);
        if let Some(user) = self.user.get() {
            event.identity = Some(user.login.identity().id.clone());
        }
        if let Some(presented) = presented {
            let key: Option<KeyFingerprint> = certificate::fingerprint(presented.key);
            event.key = key.map(|key| key.to_string());
            event.method = Some(presented.method().name());
        }
        event
    }
}

/// The account that a login name is for. What follows a colon is a style of BSD
/// authentication, of which there is none here, as in OpenSSH without it.
fn account_name(user: &str) -> &str {
    user.split_once(':').map_or(user, |(account, _)| account)
}

/// What the audit log says of a login by certificate.
fn granted(certificate: &Certificate, identity: &Identity) -> String {
    let description = Description(certificate);
    match &identity.credential {
        Credential::Authority { principal, .. } => {
            format!("principal {:?}, {description}", cut(principal))
        }
        _ => description.to_string(),
    }
}
