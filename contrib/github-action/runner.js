// What an action and its runner tell each other: inputs by variables; variables, paths, outputs and state by files; the rest
// by commands in the output. https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
'use strict'

const { randomUUID } = require('node:crypto')
const fs = require('node:fs')

const input = (name) => (process.env[`INPUT_${name.toUpperCase()}`] || '').trim()

// In a command, these characters are escaped.
const escaped = (text) => text.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A')

const mask = (secret) => console.log(`::add-mask::${escaped(secret)}`)
const warn = (text) => console.log(`::warning title=wandb-cred::${escaped(text)}`)

function fail(text) {
  console.log(`::error title=wandb-cred::${escaped(text)}`)
  process.exitCode = 1
}

function toFile(variable, name, value) {
  const file = process.env[variable]
  if (!file) throw new Error(`${variable} is not set: this runner is older than the commands by files (GitHub 2.300)`)
  const end = `end-${randomUUID()}`
  fs.appendFileSync(file, `${name}<<${end}\n${value}\n${end}\n`)
}

const exportVariable = (name, value) => toFile('GITHUB_ENV', name, value)
const setOutput = (name, value) => toFile('GITHUB_OUTPUT', name, value)
const saveState = (name, value) => toFile('GITHUB_STATE', name, value)
const addPath = (folder) => fs.appendFileSync(process.env.GITHUB_PATH, `${folder}\n`)

// Why this job cannot ask for ID tokens, and what to do; nothing if it can.
function whyNoIdentity(env) {
  if (env.ACTIONS_ID_TOKEN_REQUEST_URL && env.ACTIONS_ID_TOKEN_REQUEST_TOKEN) return undefined
  const elsewhere = 'or give the action a `config` with another identity'
  // Forgejo's runner calls itself Gitea's and GitHub's too.
  if (env.FORGEJO_ACTIONS) {
    return `this job may not ask for ID tokens: add \`enable-openid-connect: true\` to the workflow or the job (Forgejo 15 or later), ${elsewhere}`
  }
  if (env.GITEA_ACTIONS) return `Gitea Actions has no ID tokens: give the action a \`config\` with another identity`
  if (fromFork(env)) {
    return `pull requests from forks get no ID token: skip the job for them (if: github.event.pull_request.head.repo.full_name == github.repository), ${elsewhere}`
  }
  return (
    'this job may not ask for ID tokens: add `permissions: { id-token: write, contents: read }` to the job (naming one ' +
    `permission takes away the others; a called workflow needs it at its caller too), ${elsewhere}`
  )
}

function fromFork(env) {
  try {
    const { pull_request: request } = JSON.parse(fs.readFileSync(env.GITHUB_EVENT_PATH, 'utf8'))
    return request.head.repo.full_name !== request.base.repo.full_name
  } catch {
    // No pull request, or a fork that was deleted.
    return false
  }
}

module.exports = { addPath, exportVariable, fail, input, mask, saveState, setOutput, warn, whyNoIdentity }
