//! `cargo xtask …`: the only entry that people and CI use. One file per subcommand.

mod campaign;
mod cluster;
mod demo;
mod generate;
mod local;
mod plot;
mod prepare;
mod process;
mod reports;
mod target;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The developer's commands of Tidegate", max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Demo),
    Test(test::Test),
    Campaign(campaign::Campaign),
    Generate(generate::Generate),
    /// A real Kubernetes cluster on this machine, from package registries
    #[command(subcommand)]
    Cluster(cluster::Command),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Cluster(command) => cluster::run(command),
        Command::Demo(demo) => demo.run().map(|()| ExitCode::SUCCESS),
        Command::Test(test) => test.run().map(|()| ExitCode::SUCCESS),
        Command::Campaign(campaign) => campaign.run().map(|()| ExitCode::SUCCESS),
        Command::Generate(generate) => generate.run().map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
