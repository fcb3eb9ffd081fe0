// The action's main step: installs both programs, starts a daemon for this job alone, and gives the job's later steps (or the
// script of `run`) the environment in which W&B clients use it. post.js ends it.
//
// Node's own modules only, so that what is reviewed here is what runs.
'use strict'

const { spawn, spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const job = require('./job.js')
const runner = require('./runner.js')

const root = path.join(__dirname, '../..')
const { input } = runner

function main() {
  if (process.platform === 'win32') {
    throw new Error('wandb-cred does not run on Windows; use a Linux or macOS runner')
  }
  const config = input('config')
  if (!config) {
    if (!input('audience')) throw new Error('`audience` is missing: the name of your W&B organization')
    const missing = runner.whyNoIdentity(process.env)
    if (missing) throw new Error(missing)
  }
  // First of all, so that the post step finds it even if this step is killed.
  const folder = job.makeFolder(process.env)
  runner.saveState('folder', folder)

  install(folder)
  const env = {
    ...process.env,
    PATH: `${job.bin(folder)}${path.delimiter}${process.env.PATH}`,
    WANDB_CRED_SOCKET: job.socket(folder),
    WANDB_CRED_CONFIG: config ? path.resolve(config) : job.writeConfig(folder, input('audience'), input('base-url')),
    // Also masks the tokens that come after that of this moment.
    WANDB_CRED_MASK: '::add-mask::',
  }
  if (input('profile')) env.WANDB_CRED_PROFILE = input('profile')

  // Node was started by the runner; in a container by nobody who is there, and the container's first process lasts as long.
  const holder = job.hold(folder, process.ppid || 1)
  job.startDaemon(folder, holder, env)
  const variables = job.environment(folder, holder, env, input('proxy') === 'true')
  maskTokens(folder, env, variables)
  runner.setOutput('base-url', variables.WANDB_BASE_URL)
  runner.setOutput('socket', env.WANDB_CRED_SOCKET)

  const own = ['WANDB_CRED_SOCKET', 'WANDB_CRED_CONFIG', 'WANDB_CRED_MASK'].map((name) => [name, env[name]])
  const all = [...own, ...Object.entries(variables)]
  if (input('run')) {
    for (const [name, value] of all) {
      if (value === null) delete env[name]
      else env[name] = value
    }
    return run(folder, env)
  }
  for (const [name, value] of all) {
    if (value !== null) {
      runner.exportVariable(name, value)
    } else if (process.env[name]) {
      // A step cannot unset a variable for the next ones; W&B's SDK takes an empty one for none.
      runner.warn(`${name} is set for this job; later steps find it empty, because it would go before these credentials`)
      runner.exportVariable(name, '')
    }
  }
  runner.addPath(job.bin(folder))
}

function install(folder) {
  const version = input('version') || /^version = "(.+)"$/m.exec(fs.readFileSync(path.join(root, 'Cargo.toml'), 'utf8'))[1]
  const { GITHUB_SERVER_URL, GITHUB_ACTION_REPOSITORY } = process.env
  const own = GITHUB_ACTION_REPOSITORY && `${GITHUB_SERVER_URL}/${GITHUB_ACTION_REPOSITORY}/releases/download`
  const env = { ...process.env, WANDB_CRED_SHA256: input('sha256') }
  if (input('releases') || own) env.WANDB_CRED_RELEASES = input('releases') || own
  const from = input('install-from') || 'release'
  const script = path.join(root, 'contrib/ci/install.sh')
  job.done('sh', [script, job.bin(folder), version, from], { env, timeout: 600_000 })
}

// The tokens of this moment. A profile that gives none fails here, before any work is done.
function maskTokens(folder, env, variables) {
  const need = input('need') ? ['--need', input('need')] : []
  // Masked here; and what this says on standard error is shown.
  const quiet = { ...env, WANDB_CRED_MASK: '' }
  runner.mask(job.done(path.join(job.bin(folder), 'wandb-cred'), ['token', ...need], { env: quiet }).trim())
  if (variables.WANDB_API_KEY) runner.mask(variables.WANDB_API_KEY)
  const file = variables.WANDB_IDENTITY_TOKEN_FILE
  const identity = file ? fs.readFileSync(file, 'utf8') : ''
  // Where access tokens come from another daemon, the file holds a word of everyday language.
  if (identity.includes('.')) runner.mask(identity)
}

// Runs the script as the runner runs one: its output, its exit code, and the signals of a cancelled job.
function run(folder, env) {
  const script = path.join(folder, 'run.sh')
  fs.writeFileSync(script, input('run'))
  const bash = ['bash', '--noprofile', '--norc', '-eo', 'pipefail']
  const [shell, ...options] = spawnSync('bash', ['-c', ':']).error ? ['sh', '-e'] : bash
  const cwd = path.resolve(input('working-directory') || '.')
  // In a group of its own: the runner signals this process only, and the script's programs have things to save.
  const child = spawn(shell, [...options, script], { env, cwd, stdio: ['ignore', 'inherit', 'inherit'], detached: true })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => job.signal(-child.pid, signal))
  }
  child.on('error', (error) => runner.fail(error.message))
  child.on('exit', (code, signal) => {
    if (signal) runner.fail(`the script was ended by ${signal}`)
    else process.exitCode = code
  })
}

try {
  main()
} catch (error) {
  runner.fail(error.message)
}
