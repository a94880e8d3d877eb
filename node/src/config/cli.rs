//! holmd's command line: `holmd --config FILE` runs a node, `holmd config init|check|show` helps
//! with its configuration. Flags are generated from [`KEYS`].

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::keys::{KEYS, names};
use super::{Config, ConfigError, annotated_default};

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Run a node.
    Run(Box<Config>),
    /// Print this on standard output and stop.
    Print(String),
}

/// The command line as clap sees it.
#[must_use]
pub fn command() -> Command {
    let config = Command::new("config")
        .about("Makes, checks and shows configuration")
        .subcommand_required(true)
        .subcommand(
            Command::new("init").about("Prints a file with every key, its meaning and default"),
        )
        .subcommand(Command::new("check").about("Checks the configuration and says what is wrong"))
        .subcommand(
            Command::new("show").about("Prints every effective value and where it came from"),
        );
    let file = Arg::new("config")
        .long("config")
        .short('c')
        .value_name("FILE")
        .global(true)
        .value_parser(value_parser!(PathBuf))
        .help("The configuration file [env: HOLM_CONFIG]");
    let flags = KEYS.iter().zip(names()).map(|(key, names)| {
        Arg::new(names.dotted.as_str())
            .long(names.flag.as_str())
            .value_name("VALUE")
            .global(true)
            .action(ArgAction::Set)
            .allow_negative_numbers(true)
            .help_heading("Overrides of the file")
            .help(format!("{} [env: {}]", key.doc.replace('\n', " "), names.env))
    });
    Command::new("holmd")
        .about("Runs one node of a holm cluster")
        .version(env!("CARGO_PKG_VERSION"))
        .arg(file)
        .args(flags)
        .subcommand(config)
}

impl Invocation {
    /// Reads the command line, with `env` as the environment.
    ///
    /// # Errors
    /// [`ConfigError::Usage`] for what clap refuses or answers itself (`--help`); else what is wrong
    /// with the configuration.
    pub fn parse<A: Into<OsString> + Clone>(
        args: impl IntoIterator<Item = A>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Invocation, ConfigError> {
        let matches = command().try_get_matches_from(args).map_err(ConfigError::Usage)?;
        let verb = matches.subcommand_matches("config").and_then(ArgMatches::subcommand);
        let (verb, matches) = match verb {
            None => ("run", &matches),
            Some((verb, matches)) => (verb, matches),
        };
        if verb == "init" {
            return Ok(Invocation::Print(annotated_default()));
        }
        let path = matches.get_one::<PathBuf>("config").cloned();
        let path = path.or_else(|| env("HOLM_CONFIG").map(PathBuf::from));
        let flag = |index: usize| matches.get_one::<String>(&names()[index].dotted).cloned();
        let var = |index: usize| env(&names()[index].env);
        let (config, merged) = Config::from_sources(path.as_deref(), &var, &flag)?;
        Ok(match verb {
            "check" => Invocation::Print("configuration is valid\n".to_owned()),
            "show" => Invocation::Print(merged.render()),
            _ => Invocation::Run(Box::new(config)),
        })
    }
}
