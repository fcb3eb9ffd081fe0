# NixOS: each user has the daemon, started by its first use. Configurations stay in the users' homes.
flake:
{
  config,
  lib,
  pkgs,
  ...
}:

let
  settings = config.services.wandb-cred;
in
{
  options.services.wandb-cred = {
    enable = lib.mkEnableOption "the daemon for every user";
    package = lib.mkOption {
      type = lib.types.package;
      default = flake.packages.${pkgs.stdenv.hostPlatform.system}.default;
      defaultText = "the flake's own";
      description = "The package to use.";
    };
  };

  config = lib.mkIf settings.enable {
    environment.systemPackages = [ settings.package ];
    systemd.packages = [ settings.package ];
    # NixOS ignores [Install] of the units of packages.
    systemd.user.sockets.wandb-cred.wantedBy = [ "sockets.target" ];
  };
}
