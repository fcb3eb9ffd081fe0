# home-manager: the daemon of one user, started by its first use on Linux, and the configuration.
flake:
{
  config,
  lib,
  pkgs,
  ...
}:

let
  own = config.services.wandb-cred;
  toml = pkgs.formats.toml { };
  units = "${own.package}/share/systemd/user";
in
{
  options.services.wandb-cred = {
    enable = lib.mkEnableOption "wandb-cred";
    package = lib.mkOption {
      type = lib.types.package;
      default = flake.packages.${pkgs.stdenv.hostPlatform.system}.default;
      defaultText = "the flake's own";
      description = "The package to use.";
    };
    settings = lib.mkOption {
      inherit (toml) type;
      default = { };
      example = {
        profile.work = {
          audience = "acme";
          provider.gcp = { };
        };
      };
      description = "What config.toml holds (wandb-cred-config(5)); no file is written if this is empty. Secrets do not belong here: the Nix store is readable by everybody.";
    };
  };

  config = lib.mkIf own.enable (
    lib.mkMerge [
      { home.packages = [ own.package ]; }
      (lib.mkIf (own.settings != { } && pkgs.stdenv.hostPlatform.isLinux) {
        xdg.configFile."wandb-cred/config.toml".source = toml.generate "wandb-cred.toml" own.settings;
      })
      (lib.mkIf (own.settings != { } && pkgs.stdenv.hostPlatform.isDarwin) {
        home.file."Library/Application Support/wandb-cred/config.toml".source = toml.generate "wandb-cred.toml" own.settings;
      })
      (lib.mkIf pkgs.stdenv.hostPlatform.isLinux {
        # As they are shipped: home-manager's own options would be a second copy of them.
        xdg.configFile."systemd/user/wandb-cred.service".source = "${units}/wandb-cred.service";
        xdg.configFile."systemd/user/wandb-cred.socket".source = "${units}/wandb-cred.socket";
        xdg.configFile."systemd/user/sockets.target.wants/wandb-cred.socket".source = "${units}/wandb-cred.socket";
      })
      (lib.mkIf pkgs.stdenv.hostPlatform.isDarwin {
        launchd.agents.wandb-cred = {
          enable = true;
          config = {
            ProgramArguments = [
              "${own.package}/bin/wandb-credd"
              "run"
            ];
            RunAtLoad = true;
            KeepAlive.Crashed = true;
            ProcessType = "Background";
            ExitTimeOut = 40;
            Umask = 63;
          };
        };
      })
    ]
  );
}
