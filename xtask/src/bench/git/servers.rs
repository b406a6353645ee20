//! Git's own servers, each on a port of its own, over the same folder of repositories.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::super::servers::{Server, wait};
use crate::{files, sh::Cmd, tools};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// `git daemon`: no encryption, no identities.
pub(super) struct Daemon {
    pub(super) port: u16,
    _server: Server,
}

impl Daemon {
    pub(super) fn start(repositories: &Path) -> Result<Self> {
        let port = free_port()?;
        // By itself, so that ending it ends it: `git daemon` waits for a process of this.
        let child = Command::new(exec_path(repositories)?.join("git-daemon"))
            .args([
                "--reuseaddr",
                "--export-all",
                "--enable=receive-pack",
                "--log-destination=none",
            ])
            .args([format!("--listen={HERE}"), format!("--port={port}")])
            .arg(format!("--base-path={}", repositories.display()))
            .arg(repositories)
            .stdin(Stdio::null())
            .spawn()?;
        let server = Server(child);
        wait("git daemon", || TcpStream::connect((HERE, port)).ok())?;
        Ok(Self { port, _server: server })
    }
}

/// `git http-backend` behind nginx, as its manual has it.
pub(super) struct Web {
    pub(super) http: u16,
    pub(super) https: u16,
    _nginx: Server,
    _wrapper: Server,
}

impl Web {
    pub(super) fn start(dir: &Path, repositories: &Path) -> Result<Self> {
        let (http, https) = (free_port()?, free_port()?);
        let [socket, config] = ["fcgi.sock", "nginx.conf"].map(|name| dir.join(name));
        let (certificate, key) = certificate(dir)?;
        let text = format!(
            "daemon off;\nmaster_process off;\nuser root;\npid {dir}/nginx.pid;\n\
             error_log stderr error;\nevents {{}}\nhttp {{\n\
             access_log off;\nclient_max_body_size 0;\nclient_body_temp_path {dir}/body;\n\
             fastcgi_temp_path {dir}/fastcgi;\nproxy_temp_path {dir}/proxy;\n\
             uwsgi_temp_path {dir}/uwsgi;\nscgi_temp_path {dir}/scgi;\n\
             server {{\nlisten {HERE}:{http};\nlisten {HERE}:{https} ssl;\n\
             ssl_certificate {};\nssl_certificate_key {};\nssl_protocols TLSv1.3;\n\
             location / {{\nfastcgi_pass unix:{};\nfastcgi_buffering off;\n\
             fastcgi_param SCRIPT_FILENAME {}/git-http-backend;\n\
             fastcgi_param GIT_PROJECT_ROOT {};\nfastcgi_param GIT_HTTP_EXPORT_ALL 1;\n\
             fastcgi_param GIT_PROTOCOL $http_git_protocol;\nfastcgi_param PATH_INFO $uri;\n\
             fastcgi_param QUERY_STRING $query_string;\n\
             fastcgi_param REQUEST_METHOD $request_method;\n\
             fastcgi_param CONTENT_TYPE $content_type;\n\
             fastcgi_param CONTENT_LENGTH $content_length;\n\
             fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding;\n}}\n}}\n}}\n",
            certificate.display(),
            key.display(),
            socket.display(),
            exec_path(repositories)?.display(),
            repositories.display(),
            dir = dir.display(),
        );
        files::write(&config, text.as_bytes())?;
        let program = tools::find("fcgiwrap").context("no fcgiwrap")?;
        let address = format!("unix:{}", socket.display());
        let wrapper = Command::new(program).args(["-s", &address]).stdin(Stdio::null()).spawn()?;
        let wrapper = Server(wrapper);
        wait("fcgiwrap", || socket.exists().then_some(()))?;
        let program = tools::find("nginx").context("no nginx")?;
        let nginx = Command::new(program).arg("-c").arg(&config).stdin(Stdio::null()).spawn()?;
        let nginx = Server(nginx);
        wait("nginx", || TcpStream::connect((HERE, https)).ok())?;
        Ok(Self { http, https, _nginx: nginx, _wrapper: wrapper })
    }
}

/// A certificate that nobody has signed, and its key.
fn certificate(dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let (certificate, key) = (dir.join("web.crt"), dir.join("web.key"));
    Cmd::new(dir, "openssl")
        .args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=localhost"])
        .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .read()?;
    Ok((certificate, key))
}

/// Where git keeps the programs that it runs.
fn exec_path(dir: &Path) -> Result<PathBuf> {
    Ok(Cmd::new(dir, "git").arg("--exec-path").read()?.trim().into())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((HERE, 0))?.local_addr()?.port())
}
