{
  description = "Always a good Weights & Biases token, from your own identity provider";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      each = nixpkgs.lib.genAttrs systems;
      package = system: nixpkgs.legacyPackages.${system}.callPackage ./contrib/nix/package.nix { };
    in
    {
      packages = each (system: {
        default = package system;
        wandb-cred = package system;
      });
      checks = each (system: { build = package system; });
      # `services.wandb-cred.enable = true;` in a NixOS or home-manager configuration that imports it.
      nixosModules.default = import ./contrib/nix/nixos.nix self;
      homeModules.default = import ./contrib/nix/home.nix self;
    };
}
