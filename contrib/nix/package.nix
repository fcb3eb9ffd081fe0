# Both programs with manual pages, completions and units.
{
  lib,
  stdenv,
  rustPlatform,
  installShellFiles,
}:

let
  manifest = builtins.fromTOML (builtins.readFile ../../Cargo.toml);
in
rustPlatform.buildRustPackage {
  pname = manifest.package.name;
  inherit (manifest.package) version;

  src = lib.cleanSource ../..;
  cargoLock.lockFile = ../../Cargo.lock;
  cargoBuildFlags = [
    "--bin"
    "wandb-cred"
    "--bin"
    "wandb-credd"
  ];
  # They start daemons and stand-ins, and bind ports.
  doCheck = false;

  nativeBuildInputs = [ installShellFiles ];

  postInstall = ''
    installManPage man/*.[158]
    installShellCompletion --cmd wandb-cred \
      --bash <($out/bin/wandb-cred completions bash) \
      --zsh <($out/bin/wandb-cred completions zsh) \
      --fish <($out/bin/wandb-cred completions fish)
  ''
  + lib.optionalString stdenv.hostPlatform.isLinux ''
    install -Dm444 -t $out/share/systemd/user systemd/wandb-cred.socket systemd/wandb-cred.service
    substituteInPlace $out/share/systemd/user/wandb-cred.service --replace-fail /usr/bin/wandb-credd $out/bin/wandb-credd
  '';

  meta = {
    inherit (manifest.package) description;
    homepage = manifest.package.repository;
    license = with lib.licenses; [
      asl20
      mit
    ];
    mainProgram = "wandb-cred";
    platforms = lib.platforms.linux ++ lib.platforms.darwin;
  };
}
