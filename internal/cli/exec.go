package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
)

func (c *cli) execCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "exec NAME -- COMMAND [ARGUMENTS]",
		Short:             "Run a command with KUBECONFIG set to a VirtualCluster",
		Example:           `  kubectl vc exec team-a -- kubectl get pods -A`,
		ValidArgsFunction: c.completeNames,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 1 || len(args) < 2 {
				return errors.New("give the name of one VirtualCluster, -- and a command, for instance: kubectl vc exec team-a -- kubectl get pods")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.runIn(cmd.Context(), args[0], args[1:], "")
		},
	}
}

func (c *cli) shellCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "shell NAME",
		Short:             "Start a shell with KUBECONFIG set to a VirtualCluster",
		Args:              exactlyOneName,
		ValidArgsFunction: c.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			shell := os.Getenv("SHELL")
			if shell == "" {
				shell = "/bin/sh"
			}
			banner := fmt.Sprintf("kubectl now talks to VirtualCluster %s. Leave with: exit\n", args[0])
			return c.runIn(cmd.Context(), args[0], []string{shell}, banner)
		},
	}
}

// runIn runs a command, after showing the banner, with the kubeconfig of a VirtualCluster in a private file that is
// removed afterwards.
func (c *cli) runIn(ctx context.Context, name string, command []string, banner string) (err error) {
	super, vc, err := c.find(ctx, name)
	if err != nil {
		return err
	}
	config, err := adminKubeconfig(ctx, super, vc, publicKey)
	if err != nil {
		return err
	}
	content, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("writing the kubeconfig: %w", err)
	}

	// From here on the signals are the command's: the process must stay to remove the file.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	folder, err := os.MkdirTemp("", "kubectl-vc-")
	if err != nil {
		return fmt.Errorf("making a folder for the kubeconfig: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	path := filepath.Join(folder, "kubeconfig")
	if err := writePrivate(path, content); err != nil {
		return err
	}

	c.say("%s", banner)
	// It ends by itself or by signals, which are passed on, and not because this process was told to stop.
	child := exec.CommandContext(context.WithoutCancel(ctx), command[0], command[1:]...)
	child.Stdin, child.Stdout, child.Stderr = c.In, c.Out, c.ErrOut
	child.Env = append(os.Environ(), "KUBECONFIG="+path)
	return run(child, signals)
}

// run runs the child, passes signals on to it and returns how it ended as an exit code, in the way of shells.
func run(child *exec.Cmd, signals <-chan os.Signal) error {
	if err := child.Start(); errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no command %s: %w", child.Args[0], err)
	} else if err != nil {
		return fmt.Errorf("starting %s: %w", child.Args[0], err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	for {
		select {
		case s := <-signals:
			// The terminal has sent those of the keyboard to the whole process group, the child included.
			if s != os.Interrupt && s != syscall.SIGQUIT {
				_ = child.Process.Signal(s) // it may just have ended
			}
		case err := <-ended:
			exited, ok := errors.AsType[*exec.ExitError](err)
			if !ok {
				return err
			}
			if status, ok := exited.Sys().(syscall.WaitStatus); ok && status.Signaled() {
				return &exitError{code: 128 + int(status.Signal())}
			}
			return &exitError{code: exited.ExitCode()}
		}
	}
}
