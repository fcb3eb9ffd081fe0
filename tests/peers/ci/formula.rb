# Runs contrib/homebrew/wandb-cred.rb with as much of Homebrew's language as it uses, and prints what it did as JSON:
# what it would run, which files of this tree it would install, and its service.
require "json"
require "pathname"

class Pathname
  def install(*files)
    $did[:installed].concat(files.flatten.map { |file| [to_s, file.to_s] })
  end
end

$did = { ran: [], installed: [], completions: [], fields: {} }

class Formula
  class << self
    def method_missing(name, *values, &block)
      $did[:fields][name] = values.size == 1 ? values.first : values unless block
      class_eval(&block) if name == :service
    end

    # Ruby has a method of this name. What it holds needs the installed programs.
    def test = nil

    def respond_to_missing?(*) = true

    def opt_bin = Pathname("/opt/wandb-cred/bin")
    def var = Pathname("/var")
    def std_service_path_env = "/usr/bin:/bin"
  end

  def bin = Pathname("/prefix/bin")
  def man1 = Pathname("man1")
  def man5 = Pathname("man5")
  def man8 = Pathname("man8")
  def std_cargo_args = ["--locked", "--root", "/prefix", "--path", "."]
  def system(*argv) = $did[:ran] << argv.map(&:to_s)

  def generate_completions_from_executable(*argv, shells:)
    $did[:completions] = [argv.map(&:to_s), shells]
  end
end

require_relative "../../../contrib/homebrew/wandb-cred"
formula = WandbCred.new
formula.install
$did[:caveats] = formula.caveats
puts JSON.generate($did)
