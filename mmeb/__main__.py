from mmeb.cli.main import main

main()
