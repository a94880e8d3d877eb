//! `holm cert`: the cluster's certificate authority, and certificates for nodes and clients.
//!
//! One CA per cluster. A node proves who it is by the name `node-<id>.holm.internal`, a client what
//! it may do by the roles in its own name ([`authority`]). The CA's key is needed only here: keep
//! it off the nodes. Nothing that exists is overwritten, and keys are readable by their owner only.

pub(crate) mod authority;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use holm_protocol::error::Role;
use holm_protocol::ids::NodeId;
use holm_protocol::limits::is_name;
use serde_json::json;

use crate::failure::Failure;
use crate::files::{self, Secrecy};
use crate::output::Output;
use authority::{Authority, Identity};

/// The CA's certificate, in its directory.
pub(crate) const CA_CERT: &str = "ca.pem";
/// The CA's key, in its directory.
pub(crate) const CA_KEY: &str = "ca.key";

/// What can be issued.
#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Make the cluster's CA: ca.pem for everybody, ca.key for you alone
    Ca(CaArgs),
    /// Issue a node's certificate: node-ID.pem and node-ID.key
    Node(NodeArgs),
    /// Issue a client's certificate: NAME.pem and NAME.key
    Client(ClientArgs),
}

/// What `cert ca` takes.
#[derive(Debug, Args)]
pub(crate) struct CaArgs {
    /// The cluster's name
    #[arg(long, default_value = "holm", value_name = "CLUSTER", value_parser = parse_name)]
    pub(crate) name: String,
    /// The directory to write to
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// How long it is valid
    #[arg(long, default_value_t = 3_650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) days: u32,
}

/// Where the CA is, where certificates go, and for how long.
#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    /// The directory with ca.pem and ca.key
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub(crate) ca: PathBuf,
    /// The directory to write to
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// How long it is valid; not longer than the CA
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) days: u32,
}

/// What `cert node` takes.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The node's id: the number in its configuration and in the layout
    #[arg(value_parser = parse_node)]
    pub(crate) id: NodeId,
    #[command(flatten)]
    pub(crate) issue: IssueArgs,
}

/// What `cert client` takes.
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// The client's name, for logs
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    /// What it may do: read, write, admin
    #[arg(long, default_value = "read,write", value_delimiter = ',', value_parser = parse_role)]
    pub(crate) roles: Vec<Role>,
    #[command(flatten)]
    pub(crate) issue: IssueArgs,
}

/// Runs `holm cert`.
///
/// # Errors
/// A file exists, cannot be written, or the CA is none or expires too soon.
pub(crate) fn run(output: &Output, command: CertCommand) -> Result<(), Failure> {
    match command {
        CertCommand::Ca(args) => {
            let (cert, key) = (args.out.join(CA_CERT), args.out.join(CA_KEY));
            let authority = Authority::create(&args.name, args.days)?;
            write(output, [&cert, &key], [authority.cert_pem(), authority.key_pem()])
        }
        CertCommand::Node(args) => {
            let identity = load(&args.issue.ca)?.node(args.id, args.issue.days)?;
            issue(output, &args.issue.out, &format!("node-{}", args.id.0), &identity)
        }
        CertCommand::Client(args) => {
            let authority = load(&args.issue.ca)?;
            let identity = authority.client(&args.name, &args.roles, args.issue.days)?;
            issue(output, &args.issue.out, &args.name, &identity)
        }
    }
}

fn load(directory: &Path) -> Result<Authority, Failure> {
    let cert = files::read(&directory.join(CA_CERT))?;
    let key = files::read(&directory.join(CA_KEY))?;
    Authority::load(cert, &key)
}

fn issue(output: &Output, out: &Path, stem: &str, identity: &Identity) -> Result<(), Failure> {
    let (cert, key) = (out.join(format!("{stem}.pem")), out.join(format!("{stem}.key")));
    write(output, [&cert, &key], [&identity.cert_pem, &identity.key_pem])
}

/// Writes certificate and key, both or (as far as can be seen beforehand) none.
fn write(output: &Output, paths: [&Path; 2], pems: [&str; 2]) -> Result<(), Failure> {
    let ([cert, key], [cert_pem, key_pem]) = (paths, pems);
    if let Some(directory) = cert.parent() {
        files::create_dir(directory)?;
    }
    files::refuse_existing([cert, key])?;
    files::create_new(key, key_pem, Secrecy::Private)?;
    files::create_new(cert, cert_pem, Secrecy::Public)?;
    output.result(
        || json!({ "cert": cert, "key": key }),
        || format!("certificate: {}\nkey:         {}\n", cert.display(), key.display()),
    )
}

fn parse_node(text: &str) -> Result<NodeId, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("`{text}` is no node id: use a number from 1")),
        Ok(id) => Ok(NodeId(id)),
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    if is_name(text) {
        return Ok(text.to_owned());
    }
    Err("use 1 to 64 of a-z 0-9 - _ . starting with a letter or digit".to_owned())
}

fn parse_role(text: &str) -> Result<Role, String> {
    match text {
        "read" => Ok(Role::Read),
        "write" => Ok(Role::Write),
        "admin" => Ok(Role::Admin),
        other => Err(format!("`{other}` is no role: use read, write or admin")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::Format;

    /// Goal: the three commands work together and leave what exists alone. Method: a CA, a node and
    /// a client in one directory, then each of them again.
    #[test]
    fn commands_write_once() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::new(Format::Json, true);
        let at = |days| IssueArgs { ca: dir.path().into(), out: dir.path().into(), days };
        let ca = || CaArgs { name: "demo".into(), out: dir.path().into(), days: 30 };
        let node = || NodeArgs { id: NodeId(7), issue: at(10) };
        let client = || ClientArgs { name: "alice".into(), roles: vec![Role::Read], issue: at(10) };
        run(&output, CertCommand::Ca(ca())).unwrap();
        run(&output, CertCommand::Node(node())).unwrap();
        run(&output, CertCommand::Client(client())).unwrap();
        let before = files::read(&dir.path().join(CA_KEY)).unwrap();
        assert!(run(&output, CertCommand::Ca(ca())).is_err());
        assert!(run(&output, CertCommand::Node(node())).is_err());
        assert!(run(&output, CertCommand::Client(client())).is_err());
        assert_eq!(files::read(&dir.path().join(CA_KEY)).unwrap(), before);
        for key in [CA_KEY, "node-7.key", "alice.key"] {
            let mode = std::fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        let too_long = NodeArgs { id: NodeId(8), issue: at(31) };
        assert!(run(&output, CertCommand::Node(too_long)).is_err());
        assert!(!dir.path().join("node-8.key").exists());
    }
}
