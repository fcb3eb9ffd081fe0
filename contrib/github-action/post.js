// The action's post step: ends the job's daemon, and removes everything of it. Runs after a failed or cancelled main step too.
'use strict'

const job = require('./job.js')
const runner = require('./runner.js')

const folder = process.env.STATE_folder
if (folder) {
  const warnings = job.end(folder)
  if (warnings) console.log(`::group::Warnings of wandb-credd\n${warnings}\n::endgroup::`)
}
