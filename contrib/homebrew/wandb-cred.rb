# For a tap: scripts/formula fills in the address and hash of a release. `brew install --HEAD` needs neither.
class WandbCred < Formula
  desc "Always a good Weights & Biases token, from your own identity provider"
  homepage "https://github.com/OWNER/wandb-cred"
  url "https://github.com/OWNER/wandb-cred/archive/refs/tags/v0.1.0.tar.gz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license any_of: ["Apache-2.0", "MIT"]
  head "https://github.com/OWNER/wandb-cred.git", branch: "main"

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args, "--bin", "wandb-cred", "--bin", "wandb-credd"
    man1.install Dir["man/*.1"]
    man5.install Dir["man/*.5"]
    man8.install Dir["man/*.8"]
    generate_completions_from_executable(bin/"wandb-cred", "completions", shells: [:bash, :zsh, :fish])
  end

  def caveats
    <<~EOS
      To have the daemon started by its first use, and at each login:
        wandb-cred service install
      It runs all the time with this instead; do not use both:
        brew services start wandb-cred
    EOS
  end

  service do
    run [opt_bin/"wandb-credd", "run"]
    keep_alive crashed: true
    error_log_path var/"log/wandb-cred.log"
    # Helpers of `command` providers, such as gcloud.
    environment_variables PATH: std_service_path_env
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/wandb-cred --version")
    (testpath/"config.toml").write <<~TOML
      [profile.work]
      audience = "acme"
      [profile.work.provider.gcp]
    TOML
    system bin/"wandb-credd", "check", "--config", testpath/"config.toml"
    # No daemon runs: exit code 69.
    shell_output("WANDB_CRED_SOCKET=#{testpath}/s #{bin}/wandb-cred status 2>&1", 69)
  end
end
