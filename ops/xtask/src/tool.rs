//! Tools written in Rust that a step needs: taken from the path, or built once into the cache.

use std::path::PathBuf;

use crate::place::Place;
use crate::run::{Child, Failure};

/// A program that crates.io has, and which version of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    /// The crate and its program.
    pub(crate) name: &'static str,
    /// The version that is installed.
    pub(crate) version: &'static str,
    /// What makes the program say its version.
    pub(crate) version_args: &'static [&'static str],
    /// How the answer of a version begins that does as well.
    pub(crate) compatible: &'static str,
}

impl Tool {
    /// The program: on the path if it is a compatible one, else in the cache, built there if need
    /// be.
    ///
    /// # Errors
    /// It cannot be built.
    pub(crate) fn install(&self, place: &Place) -> Result<PathBuf, Failure> {
        let Tool { name, version, .. } = self;
        let tools = place.cache.join("tools");
        let installed = tools.join("bin").join(name);
        for candidate in [PathBuf::from(name), installed.clone()] {
            let said = Child::new(&candidate, self.version_args).output();
            if said.is_ok_and(|said| said.starts_with(self.compatible)) {
                return Ok(candidate);
            }
        }
        println!("installing {name} {version} into {}", tools.display());
        let version = format!("={version}");
        let root = tools.to_string_lossy();
        let args = ["install", name, "--locked", "--version", &version, "--root", &root];
        Child::new("cargo", &args)
            .directory(&place.root)
            .env("CARGO_TARGET_DIR", tools.join("target"))
            .run(&format!("run: cargo install {name} --locked --version {version}"))?;
        Ok(installed)
    }
}
