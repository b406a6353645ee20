//! Builds again when the web client that is embedded has changed.

fn main() {
    // Cargo reads this line from the output; the lint is about programs that people run.
    #[allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]
    {
        println!("cargo:rerun-if-changed=../../web/app/dist");
    }
}
