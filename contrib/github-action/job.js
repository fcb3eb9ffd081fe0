// The daemon of one job: its folder, its programs, its life. What starts it and what ends it are different processes, so all
// that is known of it is in the folder.
'use strict'

const { spawn, spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const bin = (folder) => path.join(folder, 'bin')
// A folder of this name is removed by the daemon itself.
const runtime = (folder) => path.join(folder, 'exec-job')
const socket = (folder) => path.join(runtime(folder), 'wandb-cred.sock')
const log = (folder) => path.join(folder, 'daemon.log')
const holderFile = (folder) => path.join(folder, 'holder')

// A socket's path is limited (108 bytes on Linux, 104 on macOS), and folders of self-hosted runners can be deep.
const LONGEST_SOCKET = 103

function makeFolder(env) {
  const bases = [env.RUNNER_TEMP, os.tmpdir(), '/tmp'].filter(Boolean)
  const fits = bases.filter((base) => Buffer.byteLength(socket(path.join(base, 'wandb-cred-XXXXXX'))) <= LONGEST_SOCKET)
  const refused = []
  for (const base of fits) {
    try {
      const folder = fs.mkdtempSync(path.join(base, 'wandb-cred-'))
      for (const made of [bin(folder), runtime(folder)]) fs.mkdirSync(made, { mode: 0o700 })
      return folder
    } catch (error) {
      refused.push(error.message)
    }
  }
  throw new Error(`no temporary folder can be used: ${refused.join('; ')}`)
}

// JSON's strings are TOML's basic strings.
function writeConfig(folder, audience, baseUrl) {
  const file = path.join(folder, 'config.toml')
  const lines = ['[profile.ci]', `audience = ${JSON.stringify(audience)}`]
  if (baseUrl) lines.push(`base-url = ${JSON.stringify(baseUrl)}`)
  lines.push('[profile.ci.provider.github-actions]')
  fs.writeFileSync(file, lines.join('\n') + '\n', { mode: 0o600 })
  return file
}

// Starts what stands for the job, and gives its process number.
function hold(folder, lastsAsLongAs) {
  const script = path.join(__dirname, '../ci/hold.sh')
  const holder = spawn('sh', [script, String(lastsAsLongAs)], { detached: true, stdio: 'ignore', cwd: '/' })
  if (!holder.pid) throw new Error('sh cannot be started')
  holder.unref()
  fs.writeFileSync(holderFile(folder), String(holder.pid))
  return holder.pid
}

function startDaemon(folder, holder, env) {
  const file = fs.openSync(log(folder), 'a', 0o600)
  const argv = ['run', '--background', '--lifetime-of', String(holder)]
  const options = { env, stdio: ['ignore', 'ignore', file], timeout: 60_000 }
  const { status, signal, error } = spawnSync(path.join(bin(folder), 'wandb-credd'), argv, options)
  fs.closeSync(file)
  if (error) throw error
  if (status !== 0) throw new Error(fs.readFileSync(log(folder), 'utf8').trim() || `wandb-credd ended with ${status ?? signal}`)
}

// The variables that W&B clients need; null for those that must not be set.
function environment(folder, holder, env, proxy) {
  const argv = ['env', '--shell', 'json', '--pid', String(holder), ...(proxy ? ['--proxy'] : [])]
  return JSON.parse(done(path.join(bin(folder), 'wandb-cred'), argv, { env }))
}

// Ends the daemon by ending what it lives for, and removes the folder. Gives what the daemon warned of.
function end(folder) {
  const running = spawnSync(path.join(bin(folder), 'wandb-cred'), ['status', '--json'], {
    env: { ...process.env, WANDB_CRED_SOCKET: socket(folder) }, encoding: 'utf8', timeout: 5_000,
  })
  const holder = Number(read(holderFile(folder)))
  if (holder) signal(holder, 'SIGTERM')
  const deadline = Date.now() + 10_000
  while (holder && fs.existsSync(runtime(folder)) && Date.now() < deadline) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20)
  }
  if (holder && fs.existsSync(runtime(folder)) && running.status === 0) {
    signal(JSON.parse(running.stdout).pid, 'SIGKILL')
  }
  const warnings = read(log(folder)).trim()
  fs.rmSync(folder, { recursive: true, force: true })
  return warnings
}

// What a program prints; what it says on standard error is the error if it fails, and is shown if it does not.
function done(program, argv, options) {
  const { status, signal, error, stdout, stderr } = spawnSync(program, argv, {
    encoding: 'utf8', timeout: 120_000, stdio: ['ignore', 'pipe', 'pipe'], ...options,
  })
  if (error) throw error
  if (status !== 0) throw new Error(stderr.trim() || `${path.basename(program)} ended with ${status ?? signal}`)
  process.stderr.write(stderr)
  return stdout
}

// A negative number is a process group. What has ended needs no signal.
function signal(pid, name) {
  try {
    process.kill(pid, name)
  } catch (error) {
    if (error.code !== 'ESRCH') throw error
  }
}

function read(file) {
  try {
    return fs.readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

module.exports = { bin, done, end, environment, hold, makeFolder, signal, socket, startDaemon, writeConfig }
