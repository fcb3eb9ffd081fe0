# Evaluates flake.nix and its modules with as much of nixpkgs as they use, on the system of the argument: what is a string,
# a list or a set there is that here. Nothing is built.
{ system }:
let
  isLinux = builtins.match ".*-linux" system != null;
  both = one: other: one // builtins.mapAttrs (name: value: if builtins.isAttrs value && one ? ${name} then both one.${name} value else value) other;
  merge = builtins.foldl' both { };
  lib = {
    genAttrs = names: make: builtins.listToAttrs (map (name: { inherit name; value = make name; }) names);
    cleanSource = path: path;
    optionalString = wanted: text: if wanted then text else "";
    licenses = { asl20 = "Apache-2.0"; mit = "MIT"; };
    platforms = { linux = [ "x86_64-linux" "aarch64-linux" ]; darwin = [ "x86_64-darwin" "aarch64-darwin" ]; };
    mkEnableOption = description: { inherit description; type = "bool"; };
    mkOption = option: option;
    mkIf = wanted: settings: if wanted then settings else { };
    mkMerge = merge;
    types.package = "package";
  };
  pkgs = {
    stdenv.hostPlatform = { inherit system isLinux; isDarwin = !isLinux; };
    formats.toml = _: { type = "TOML value"; generate = name: value: { inherit name value; }; };
    callPackage = file: _: import file {
      inherit lib;
      inherit (pkgs) stdenv;
      rustPlatform.buildRustPackage = given: given // { outPath = "/nix/store/wandb-cred"; };
      installShellFiles = "installShellFiles";
    };
  };
  nixpkgs = { inherit lib; legacyPackages.${system} = pkgs; };
  flake = (import ../../../flake.nix).outputs { self = flake; inherit nixpkgs; };
  module = which: settings:
    let
      options = which.options.services.wandb-cred;
      which = (flake.${settings.kind}.default) {
        inherit lib pkgs;
        config.services.wandb-cred = builtins.mapAttrs (_: option: option.default or false) options // settings.values;
      };
    in
    which.config;
  package = flake.packages.${system}.default;
in
{
  package = builtins.removeAttrs package [ "src" "outPath" "cargoLock" ];
  lock = builtins.pathExists package.cargoLock.lockFile;
  systems = builtins.attrNames flake.packages;
  nixos = module null { kind = "nixosModules"; values.enable = true; };
  off = module null { kind = "homeModules"; values = { }; };
  home = module null {
    kind = "homeModules";
    values = { enable = true; settings.profile.work = { audience = "acme"; provider.gcp = { }; }; };
  };
}
